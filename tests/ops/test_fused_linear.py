"""The packed linear with a norm, a gate and a residual taken in, through its CPU implementation."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from awqbench.ops import cuda_layout
from awqbench.ops.fused_linear import GATES, fused_linear

HALVES = [torch.float16, torch.bfloat16]
N, K, GROUP = 70, 96, 32
FUNCTIONS = {
    "silu": functional.silu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
}


def packed(quantized):
    tiles, steps = cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, quantized.group_size)
    return tiles, steps


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("gate", [None, *GATES])
def test_the_reference_is_float64_rounded_twice(dtype, gate, make_quantized):
    """Once before the product, once after it."""
    quantized = make_quantized(N, K, GROUP)
    x, bias, residual = (
        numbers(5, K * (2 if gate else 1), dtype=dtype),
        numbers(N, dtype=dtype),
        numbers(5, N, seed=1, dtype=dtype),
    )
    norm, eps = (numbers(K, seed=2) if gate is None else None), 1e-5
    found = fused_linear(x, *packed(quantized), bias, N, GROUP, norm=norm, eps=eps, gate=gate, residual=residual)
    wide = x.double()
    if gate:
        made = FUNCTIONS[gate](wide[:, :K]) * wide[:, K:]
    else:
        made = wide / (wide.square().mean(1, keepdim=True) + eps).sqrt() * norm.double()
    exact = made.to(dtype).double() @ quantized.dequantize(torch.float64).T + bias.double() + residual.double()
    unit = torch.finfo(dtype).eps / 2
    assert found.dtype == dtype
    # A number next to the middle of two may round to either: each moves a sum by one unit of one term.
    room = unit * exact.abs() + 2 * unit * (made.abs() * 1.0) @ quantized.dequantize(torch.float64).abs().T / 8 + 2**-24
    assert ((found.double() - exact).abs() <= room).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "options", [{}, {"norm": True, "eps": 1e-6}, {"gate": "silu"}, {"residual": True}, {"norm": True, "residual": True}]
)
def test_opcheck(dtype, options, make_quantized):
    options = dict(options)
    if "norm" in options:
        options["norm"] = numbers(K)
    if "residual" in options:
        options["residual"] = numbers(3, N, dtype=dtype)
    x = numbers(3, K * (2 if "gate" in options else 1), dtype=dtype)
    torch.library.opcheck(
        torch.ops.awqbench.w4a16_fused.default, (x, *packed(make_quantized(N, K, GROUP)), None, N, GROUP), options
    )


def test_compiles_as_one_graph(make_quantized):
    weight, norm = packed(make_quantized(N, K, GROUP)), numbers(K)

    def step(x):
        return fused_linear(x, *weight, None, N, GROUP, norm=norm, eps=1e-6).relu()

    x = numbers(2, K, dtype=torch.float16)
    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(x), step(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors_have_the_right_shape_on_any_device(device):
    (tiles, steps), half = cuda_layout.shapes(N, K, GROUP), torch.float16
    with FakeTensorMode():
        x, residual = (torch.empty(shape, dtype=half, device=device) for shape in [(7, 2 * K), (7, N)])
        weight = (
            torch.empty(tiles, dtype=torch.int32, device=device),
            torch.empty(steps, dtype=torch.uint8, device=device),
        )
        found = fused_linear(x, *weight, None, N, GROUP, gate="silu", residual=residual)
    assert (found.shape, found.dtype, found.device.type) == ((7, N), half, device)


def test_what_does_not_belong_together_is_refused(make_quantized):
    weight, half = packed(make_quantized(N, K, GROUP)), torch.float16
    x, norm = numbers(2, K, dtype=half), numbers(K)
    for wrong, options in [
        (x, {"norm": norm[:-1]}), (x, {"norm": norm.half()}), (x, {"norm": norm, "gate": "silu"}),
        (x, {"gate": "silu"}), (x, {"gate": "swish"}), (x, {"residual": numbers(2, N)}),
        (x, {"residual": numbers(1, N, dtype=half)}), (x[0], {}), (x[:, :64], {}),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=r"not |do not belong|unknown gate|at once|no rows of"):
            fused_linear(wrong, *weight, None, N, GROUP, **options)
