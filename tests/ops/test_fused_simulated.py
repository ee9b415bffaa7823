"""`fused_linear` on a GPU that is simulated: from the operator's CUDA implementation down to the kernels' threads."""

import pytest
import torch

from awqbench.ops import cuda_fused, cuda_layout
from awqbench.ops.fused_linear import GATES, _on_cuda, inputs, reference

pytestmark = pytest.mark.usefixtures("gpu")
HALVES = [torch.float16, torch.bfloat16]
EPS = 1e-5


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def options(rows, n, k, gate, dtype):
    norm = numbers(k, seed=2) if gate == "norm" else None
    named = {"norm": norm, "eps": EPS if gate == "norm" else 0.0, "gate": gate if gate in GATES else None}
    return named, {"residual": numbers(rows, n, seed=3, dtype=dtype)}


def weight(make_quantized, n, k, group):
    quantized = make_quantized(n, k, group)
    return cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, group)


def near(found, expected, dtype, room=4):
    """A number in the middle of two may round to either before the product, and again after it."""
    unit = torch.finfo(dtype).eps
    assert (found.float() - expected.float()).norm() <= room * unit * expected.float().norm()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("gate", [None, "norm", *GATES])
@pytest.mark.parametrize("rows", [1, 7, 20, 70])
def test_agrees_with_the_reference(rows, gate, dtype, make_quantized):
    n, k, group = 72, 96, 32
    x = numbers(rows, 2 * k if gate in GATES else k, dtype=dtype)
    before, after = options(rows, n, k, gate, dtype)
    arguments = (x, *weight(make_quantized, n, k, group), numbers(n, dtype=dtype), n, group)
    near(_on_cuda(*arguments, **before, **after), reference(*arguments, **before, **after), dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("gate", ["norm", *GATES])
def test_taken_in_or_apart_the_bits_are_the_same(gate, dtype, make_quantized):
    """Strided rows of x too, which a kernel of its own wants in 16-byte pieces."""
    n, k, group = 200, 320, 64
    wide = numbers(5, 2 * k + 3, dtype=dtype)
    x = wide[:, 3 : 3 + (2 * k if gate in GATES else k)]
    before, after = options(5, n, k, gate, dtype)
    arguments = (x, *weight(make_quantized, n, k, group), None, n, group)
    first, second = (cuda_fused.gemm(*arguments, **before, **after, apart=apart) for apart in (False, True))
    assert torch.equal(first, second)
    made = cuda_fused.rows(x, *before.values())
    near(made, inputs(x, *before.values()), dtype, room=1)
    assert torch.equal(first, cuda_fused.gemm(made, *arguments[1:], **after))


def test_the_product_is_the_operator_s_without_anything_taken_in(make_quantized):
    from awqbench.ops.cuda_binding import gemm

    arguments = (numbers(5, 320, dtype=torch.float16), *weight(make_quantized, 72, 320, 64), None, 72, 64)
    assert torch.equal(cuda_fused.gemm(*arguments), gemm(*arguments))


def test_any_number_of_bytes_before_the_norm_s_weight(make_quantized):
    n, k, group = 72, 96, 32
    x, packed, whole = numbers(2, k, dtype=torch.float16), weight(make_quantized, n, k, group), numbers(k + 1)
    norm = whole[1:]
    assert torch.equal(
        cuda_fused.gemm(x, *packed, None, n, group, norm=norm, eps=EPS),
        cuda_fused.gemm(x, *packed, None, n, group, norm=norm.clone(), eps=EPS),
    )


def test_no_rows_and_float32_run_the_reference(make_quantized):
    n, k, group = 72, 96, 32
    packed = weight(make_quantized, n, k, group)
    assert _on_cuda(numbers(0, k, dtype=torch.float16), *packed, None, n, group, norm=numbers(k)).shape == (0, n)
    x = numbers(3, k)
    assert torch.equal(
        _on_cuda(x, *packed, None, n, group, norm=numbers(k)), reference(x, *packed, None, n, group, norm=numbers(k))
    )


def test_a_gate_of_many_rows_is_not_taken_in(make_quantized):
    n, k, group = 72, 96, 32
    packed = weight(make_quantized, n, k, group)
    assert not cuda_fused.takes_in(9, n, k, group, 2, 0)
    with pytest.raises(RuntimeError, match="awqbench_cuda_fused: invalid argument"):
        cuda_fused.gemm(numbers(9, 2 * k, dtype=torch.float16), *packed, None, n, group, gate="silu", apart=False)
