"""What runs on a GPU, from the operator's CUDA implementation down to the kernels' threads, with the GPU simulated."""

import pytest
import torch

from awqbench.errors import BackendUnavailable
from awqbench.kernelbench import ours
from awqbench.kernelbench.problem import Shape
from awqbench.ops import cuda, cuda_binding, cuda_layout, cuda_prefill

pytestmark = pytest.mark.usefixtures("gpu")
HALVES = [torch.float16, torch.bfloat16]
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8}


def run(quantized, x, bias=None):
    packed = cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, quantized.group_size)
    return cuda._on_cuda(x, *packed, bias, quantized.codes.shape[0], quantized.group_size)


def assert_near(found, quantized, x, bias=None):
    weight = quantized.dequantize(torch.float64)
    offset = torch.zeros(1, dtype=torch.float64) if bias is None else bias.double()
    exact, sums = x.double() @ weight.T + offset, x.double().abs() @ weight.abs().T + offset.abs()
    assert found.dtype == x.dtype
    assert ((found.double() - exact).abs() <= ROUNDING[x.dtype] * exact.abs() + 1e-5 * sums + 2**-24).all()


def inputs(rows, k, dtype):
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(rows)).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("rows", "n", "k", "group"),
    [(1, 130, 256, 128), (3, 64, 96, 32), (7, 8, 96, 96), (16, 72, 192, 64), (33, 65, 160, 160), (64, 130, 384, 192)],
)
@pytest.mark.parametrize("biased", [False, True])
def test_agrees_with_float64(rows, n, k, group, dtype, biased, make_quantized):
    quantized, x = make_quantized(n, k, group), inputs(rows, k, dtype)
    bias = inputs(1, n, dtype)[0] if biased else None
    assert_near(run(quantized, x, bias), quantized, x, bias)


@pytest.mark.parametrize("dtype", HALVES)
def test_an_identity_reads_the_weight_out(dtype, make_quantized):
    quantized = make_quantized(70, 64, 32)
    assert torch.equal(run(quantized, torch.eye(64, dtype=dtype)), quantized.dequantize(dtype).T)


def test_every_variant(make_quantized):
    quantized, x = make_quantized(130, 256, 64), inputs(5, 256, torch.float16)
    packed = cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, 64)
    names = cuda.variants()
    assert names[0] == "default"
    for variant in range(len(names)):
        assert_near(cuda.gemm(x, *packed, None, 130, 64, variant), quantized, x)
    with pytest.raises(RuntimeError, match="awqbench_cuda_gemm: invalid argument"):
        cuda.gemm(x, *packed, None, 130, 64, len(names))


@pytest.mark.parametrize("shape", [(96,), (0, 96), (2, 3, 96), (2, 0, 96)])
def test_leading_dimensions(shape, make_quantized):
    quantized, x = make_quantized(70, 96, 32), torch.randn(shape).half()
    found = run(quantized, x, torch.ones(70))  # a float32 bias is taken in x's type
    assert found.shape == (*shape[:-1], 70)
    assert_near(found.view(-1, 70), quantized, x.view(-1, 96), torch.ones(70))


def test_any_strides_and_alignment(make_quantized):
    quantized, x = make_quantized(70, 96, 32), inputs(4, 96, torch.float16)
    expected = run(quantized, x)
    wide = torch.full((4, 99), torch.nan, dtype=torch.float16)
    wide[:, 1:97] = x
    spread = torch.full((4, 104), torch.nan, dtype=torch.float16)
    spread[:, :96] = x
    for view in (wide[:, 1:97], spread[:, :96], x.T.contiguous().T, wide[:1, 1:97], x[:1].expand(4, 96)):
        rows = expected[:1].expand(4, 70) if view.stride(0) == 0 else expected[: len(view)]
        assert torch.equal(run(quantized, view), rows)


def assert_near_rounded(found, quantized, x, bias=None, roundings=1, of_sums=1e-5):
    """For more rows the weights are rounded to x's type, by the kernel and before a dense product."""
    weight = quantized.dequantize(x.dtype).double()
    exact = x.double() @ weight.T + (0 if bias is None else bias.double())
    sums = x.double().abs() @ weight.abs().T + (0 if bias is None else bias.double().abs())
    allowed = roundings * ROUNDING[x.dtype] * exact.abs() + of_sums * sums + 2**-24
    assert ((found.double() - exact).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scratch", [cuda.SCRATCH_BYTES, 1])
def test_dense_weights_come_in_parts(dtype, biased, scratch, make_quantized, monkeypatch):
    monkeypatch.setattr(cuda, "SCRATCH_BYTES", scratch)
    monkeypatch.setattr(cuda_prefill, "DENSE_FROM", 65)
    quantized, x = make_quantized(150, 96, 32), inputs(65, 96, dtype)
    bias = inputs(1, 150, dtype)[0] if biased else None
    assert_near_rounded(run(quantized, x, bias), quantized, x, bias, 2, 1e-3)  # as near as a CPU's product is


@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "dtype", "biased"),
    [
        (65, 130, 96, 32, torch.float16, True),
        (65, 130, 96, 32, torch.bfloat16, False),
        (257, 72, 160, 160, torch.float16, False),
    ],
)
def test_many_rows_go_through_the_kernel_for_them(rows, n, k, group, dtype, biased, make_quantized, monkeypatch):
    monkeypatch.setattr(cuda, "through_dense", None)
    quantized, x = make_quantized(n, k, group), inputs(rows, k, dtype)
    bias = inputs(1, n, dtype)[0] if biased else None
    found = run(quantized, x, bias)
    assert_near_rounded(found, quantized, x, bias)
    wide = torch.full((rows, k + 3), torch.nan, dtype=dtype)
    wide[:, 1 : k + 1] = x
    assert torch.equal(run(quantized, wide[:, 1 : k + 1], bias), found)


def test_a_device_without_wgmma_and_very_many_rows_go_through_dense_weights(make_quantized, monkeypatch):
    assert cuda_prefill.preferred(65, 64, 64, 64, 0)
    assert not cuda_prefill.preferred(cuda_prefill.DENSE_FROM, 64, 64, 64, 0)
    monkeypatch.setattr(cuda_prefill, "scratch_bytes", lambda *arguments: None)
    quantized, x = make_quantized(70, 96, 32), inputs(65, 96, torch.float16)
    assert_near_rounded(run(quantized, x), quantized, x, None, 2, 1e-3)


def test_what_the_kernel_for_many_rows_is_timed_beside(make_quantized):
    cpu, quantized, x = torch.device("cpu"), make_quantized(70, 64, 32), inputs(66, 64, torch.float16)
    kernels = ours.variants_of(cpu)
    assert {"stream", "tall-group", "repeated", "prefill-tall", "prefill-wide"} < set(kernels)
    for kernel in (kernels["repeated"], kernels["prefill-narrow"], ours.Dense(cpu)):
        packed = kernel.pack(quantized, None, x.dtype)
        rounded = kernel.name != "ours/repeated"
        (assert_near_rounded if rounded else assert_near)(kernel.run(packed, x), quantized, x)
        shape = Shape(70, 64, 32)
        assert kernel.refusal(shape, 64, x.dtype) == "64 rows (more than 64)"
        assert kernel.refusal(shape, 65, x.dtype) is None


def test_every_variant_for_many_rows(make_quantized):
    quantized, x = make_quantized(70, 64, 32), inputs(66, 64, torch.float16)
    packed = cuda_layout.pack(quantized.codes, quantized.scales, quantized.zeros, 32)
    names = cuda_prefill.variants()
    assert names[0] == "default"
    for variant in range(len(names)):
        assert_near_rounded(cuda_prefill.prefill(x, *packed, None, 70, 32, variant), quantized, x)
    with pytest.raises(RuntimeError, match=r"awqbench_cuda_prefill: invalid argument \(variant 7, M=66 70x64 g32\)"):
        cuda_prefill.prefill(x, *packed, None, 70, 32, len(names))


def test_float32_runs_the_reference(make_quantized):
    quantized, x = make_quantized(70, 96, 32), torch.randn(3, 96)
    torch.testing.assert_close(run(quantized, x), x @ quantized.dequantize().T)


def test_the_trial_before_the_first_use_passes_and_finds_wrong_weights(monkeypatch):
    cuda_binding._try_out(torch.device("cpu"))
    real = cuda_binding.dequantize
    monkeypatch.setattr(cuda_binding, "dequantize", lambda *arguments: real(*arguments) + 1)
    with pytest.raises(BackendUnavailable, match="wrong weights"):
        cuda_binding._try_out(torch.device("cpu"))
    monkeypatch.setattr(cuda_layout, "pack", lambda *arguments: [torch.zeros(3, dtype=torch.uint8)[1:]] * 2)
    monkeypatch.setattr(cuda_binding, "dequantize", real)
    with pytest.raises(BackendUnavailable, match="do not run on cpu: awqbench_cuda_dequantize: invalid argument"):
        cuda_binding._try_out(torch.device("cpu"))
