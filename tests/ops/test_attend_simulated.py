"""`attend` on a GPU that is simulated: from the operator's CUDA implementation down to the kernel's threads."""

import pytest
import torch

from awqbench.kernelbench.attention import EPS, Contender, Heads
from awqbench.kernelbench.attention_checks import AttentionCase, tiny_cases
from awqbench.kernelbench.runner import carry_out
from awqbench.ops.attend import _on_cuda, reference

pytestmark = pytest.mark.usefixtures("gpu")


def made(dtype, batch=2, heads=6, key_heads=2, size=40, capacity=70, rotary=24, length=50):
    random = torch.Generator().manual_seed(size + heads)

    def numbers(*shape):
        return torch.randn(*shape, generator=random)

    cache = [numbers(batch, key_heads, capacity, size).to(dtype) for _ in range(2)]
    for each in cache:
        each[:, :, length:] = torch.nan
    qkv = numbers(batch, (heads + 2 * key_heads) * size).to(dtype)
    tensors = qkv, numbers(capacity, rotary), numbers(capacity, rotary), *cache, torch.tensor([length])
    norms = {"query_norm": 1 + numbers(size) / 4, "key_norm": 1 + numbers(size) / 4, "eps": 0.25}
    return tensors, {"scale": size**-0.5, "padding": torch.tensor([0, 9][:batch]), "cap": 20.0, "window": 30, **norms}


def near(found, expected, dtype):
    unit = torch.finfo(dtype).eps
    assert found.dtype == dtype
    assert (found.float() - expected.float()).norm() <= unit * expected.float().norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "all"])
def test_agrees_with_the_reference(dtype, plain):
    tensors, options = made(dtype)
    options = {"scale": 0.2} if plain else options
    (qkv, cosines, sines, keys, values, length), again = tensors, [each.clone() for each in tensors[3:5]]
    for step in range(2):
        near(_on_cuda(*tensors, **options), reference(qkv, cosines, sines, *again, length, **options), dtype)
        for cache, expected in zip((keys, values), again, strict=True):
            near(cache[:, :, : 51 + step], expected[:, :, : 51 + step], dtype)
            assert cache[:, :, 51 + step :].isnan().all()
        length.add_(1)


def test_strided_tensors_are_read_right():
    tensors, options = made(torch.float16)
    expected = _on_cuda(*tensors, **options)
    qkv, cosines, sines, *rest = tensors
    wide = torch.full((2, qkv.shape[1] + 3), torch.nan, dtype=torch.float16)
    wide[:, 3:] = qkv
    views = wide[:, 3:], cosines.T.contiguous().T, sines.T.contiguous().T
    options["query_norm"] = options["query_norm"].repeat_interleave(2)[::2]
    assert torch.equal(_on_cuda(*views, *rest, **options), expected)


def test_a_full_cache_is_left_alone():
    tensors, options = made(torch.float16)
    before = [each.clone() for each in tensors]
    tensors[-1].fill_(70)
    _on_cuda(*tensors, **options)
    assert all(
        torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(tensors[:5], before[:5], strict=True)
    )


def test_float32_runs_the_reference():
    tensors, options = made(torch.float32)
    again = [each.clone() for each in tensors]
    assert torch.equal(_on_cuda(*tensors, **options), reference(*again, **options))


def test_what_the_kernel_does_not_take_is_refused():
    tensors, options = made(torch.float16, batch=64, heads=80, key_heads=80, size=8, capacity=2, rotary=0, length=0)
    with pytest.raises(ValueError, match="allowed: up to 4096"):
        _on_cuda(*tensors, **{"scale": 1.0, "padding": options["padding"].new_zeros(64)})
    tensors, options = made(torch.float16)
    shifted = torch.empty(tensors[3].numel() + 1, dtype=torch.float16)[1:].view_as(tensors[3])
    with pytest.raises(RuntimeError, match="awqbench_cuda_attend: invalid argument"):
        _on_cuda(*tensors[:3], shifted, *tensors[4:], **options)


class Simulated(Contender):
    """What `kernels check` runs on a GPU, on the simulator."""

    name = "attend"

    def run(self, step):
        tensors = step.qkv, step.cosines, step.sines, step.keys, step.values, step.length
        sizes = step.sizes
        return _on_cuda(
            *tensors, padding=step.padding, query_norm=step.query_norm, key_norm=step.key_norm, scale=step.scale,
            eps=EPS if sizes.norms else 0.0, cap=sizes.cap, window=sizes.window,
        )  # fmt: skip


def test_the_checks_for_a_gpu_pass():
    sizes = Heads(6, 2, 40, 2, 45, 70, norms=True)
    cases = [*tiny_cases(), *(AttentionCase(check, sizes) for check in ("attention-bits", "attention-steps"))]
    rows = [carry_out(Simulated(), case, torch.device("cpu")) for case in cases]
    assert [row.line() for row in rows if row.status != "pass"] == []
