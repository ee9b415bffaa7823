"""The operator of the CUDA kernels, through its CPU implementation: the reference on the same packed tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from awqbench.ops import cuda, cuda_layout

HALVES = [torch.float16, torch.bfloat16]
# Of one rounding to the type, and of float32 sums in another order.
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: 0}


def arguments(quantized, x, bias=None):
    tiles, steps = cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, quantized.group_size)
    return x, tiles, steps, bias, quantized.codes.shape[0], quantized.group_size


def expected(quantized, x, bias=None):
    out = x.double() @ quantized.dequantize(torch.float64).T
    return out if bias is None else out + bias.double()


def assert_near(found, quantized, x, bias=None):
    exact = expected(quantized, x, bias)
    sums = x.double().abs() @ quantized.dequantize(torch.float64).abs().T + (0 if bias is None else bias.double().abs())
    assert found.dtype == x.dtype
    # float16 ends at 2**-24: what is smaller rounds to a multiple of it.
    assert ((found.double() - exact).abs() <= ROUNDING[x.dtype] * exact.abs() + 1e-5 * sums + 2**-24).all()


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 150), group=st.sampled_from([32, 64, 128, 192, "row"]), count=st.integers(1, 5),
    rows=st.integers(0, 70), dtype=st.sampled_from([*HALVES, torch.float32]), biased=st.booleans(),
)  # fmt: skip
def test_any_shape_agrees_with_float64(n, group, count, rows, dtype, biased, make_quantized):
    k, group = (32 * count, 32 * count) if group == "row" else (group * count, group)
    quantized = make_quantized(n, k, group, seed=n + rows)
    x, bias = torch.randn(rows, k).to(dtype), torch.randn(n).to(dtype) if biased else None
    assert_near(cuda.w4a16_gemm(*arguments(quantized, x, bias)), quantized, x, bias)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_an_identity_reads_the_weight_out(dtype, make_quantized):
    quantized = make_quantized(70, 192, 64)
    found = cuda.w4a16_gemm(*arguments(quantized, torch.eye(192, dtype=dtype)))
    assert torch.equal(found, quantized.dequantize(dtype).T)


def test_integers_are_exact(make_quantized):
    """Scales of 1 and small integers: every order of summation gives the same, and bfloat16 does not hold the sums."""
    quantized = make_quantized(64, 256, 32)
    quantized.scales.fill_(1)
    x = torch.randint(-2, 3, (5, 256)).half()
    assert torch.equal(cuda.w4a16_gemm(*arguments(quantized, x)).double(), expected(quantized, x))


def test_parts_of_a_large_weight_change_nothing(make_quantized, monkeypatch):
    quantized, x = make_quantized(200, 96, 32), torch.randn(3, 96)
    bias = torch.randn(200)
    whole = cuda.w4a16_gemm(*arguments(quantized, x, bias))
    monkeypatch.setattr(cuda, "REFERENCE_BYTES", 1)
    torch.testing.assert_close(cuda.w4a16_gemm(*arguments(quantized, x, bias)), whole)


@pytest.mark.parametrize("shape", [(96,), (0, 96), (2, 3, 96), (2, 0, 96)])
def test_leading_dimensions(shape, make_quantized):
    quantized, x = make_quantized(70, 96, 32), torch.randn(shape)
    found = cuda.w4a16_gemm(*arguments(quantized, x, torch.ones(70)))
    torch.testing.assert_close(found, torch.nn.functional.linear(x, quantized.dequantize(), torch.ones(70)))


def test_strided_inputs_are_read_right(make_quantized):
    quantized, x = make_quantized(70, 96, 32), torch.randn(5, 4, 192).transpose(0, 1)[..., ::2]
    assert torch.equal(
        cuda.w4a16_gemm(*arguments(quantized, x)), cuda.w4a16_gemm(*arguments(quantized, x.contiguous()))
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(3, 96), (2, 5, 96), (0, 96), (96,)])
@pytest.mark.parametrize("biased", [False, True])
def test_opcheck(shape, dtype, biased, make_quantized):
    bias = torch.ones(70, dtype=dtype) if biased else None
    torch.library.opcheck(cuda.w4a16_gemm, arguments(make_quantized(70, 96, 32), torch.randn(shape).to(dtype), bias))


class Layer(torch.nn.Module):
    def __init__(self, quantized):
        super().__init__()
        _, tiles, steps, _, self.n, self.group = arguments(quantized, None)
        self.register_buffer("tiles", tiles)
        self.register_buffer("steps", steps)

    def forward(self, x):
        return cuda.w4a16_gemm(x, self.tiles, self.steps, None, self.n, self.group).relu()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph(backend, make_quantized):
    layer, x = Layer(make_quantized(70, 96, 32)), torch.randn(2, 3, 96).half()
    with torch.no_grad():
        assert torch.equal(torch.compile(layer, fullgraph=True, backend=backend)(x), layer(x))
    torch._dynamo.reset()


def test_exports_with_a_free_number_of_rows(make_quantized):
    layer, x = Layer(make_quantized(70, 96, 32)), torch.randn(3, 96).half()
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("rows", max=4096)},))
    assert "w4a16_gemm" in str(exported.graph)
    more = torch.randn(7, 96).half()
    assert torch.equal(exported.module()(more), layer(more))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors_have_the_right_shape_on_any_device(device):
    (tiles, steps), bfloat16 = cuda_layout.shapes(70, 96, 32), torch.bfloat16
    with FakeTensorMode():
        x, bias = (torch.empty(shape, dtype=bfloat16, device=device) for shape in [(2, 7, 96), (70,)])
        weight = (
            torch.empty(tiles, dtype=torch.int32, device=device),
            torch.empty(steps, dtype=torch.uint8, device=device),
        )
        found = cuda.w4a16_gemm(x, *weight, bias, 70, 32)
    assert found.shape == (2, 7, 70)
    assert found.dtype == torch.bfloat16
    assert found.device.type == device


def test_sizes_that_do_not_belong_together_are_refused(make_quantized):
    x, tiles, steps, _, n, group = arguments(make_quantized(70, 192, 64), torch.randn(2, 192))
    for wrong in [
        (x, tiles, steps, None, n + 64, group), (x[:, :128], tiles, steps, None, n, group),
        (x, tiles, steps, None, n, 32), (x, tiles[:1], steps, None, n, group),
        (x, tiles, steps, torch.ones(1), n, group),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="do not belong"):
            cuda.w4a16_gemm(*wrong)
    with pytest.raises(ValueError, match="groups of 48"):
        cuda.w4a16_gemm(x, tiles, steps, None, n, 48)
    with pytest.raises(ValueError, match="contiguous"):
        cuda.w4a16_gemm(x, tiles.flip(0).transpose(2, 3).contiguous().transpose(2, 3), steps, None, n, group)
