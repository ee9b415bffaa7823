import pytest
import torch

from awqbench.ops import QuantizedLinear, cpu
from awqbench.ops.op import w4a16_linear

KERNELS = ["dequantize", *(["cpu"] if cpu.unavailable() is None else [])]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (0, 64), (64,)])
@pytest.mark.parametrize(("bits", "biased"), [(4, False), (4, True), (8, True)])
def test_opcheck(kernel, shape, bits, biased, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32, bits), torch.ones(16) if biased else None, kernel=kernel)
    arguments = (torch.randn(shape), layer.codes, layer.scales, layer.zeros, layer.bias, 32, layer.width, kernel)
    torch.library.opcheck(w4a16_linear, arguments)


def test_opcheck_of_the_bfloat16_kernel(make_quantized):
    layer = QuantizedLinear(make_quantized(32, 64, 32), dtype=torch.bfloat16, kernel="torch-int4")
    scales = layer.get_buffer("kernel_scale_bits").view(torch.bfloat16)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    torch.library.opcheck(w4a16_linear, (x, layer.codes, scales, layer.zeros, None, 32, 4, "torch-int4"))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles_as_one_graph(backend, kernel, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32), torch.randn(16), kernel=kernel)
    x = torch.randn(2, 3, 64)
    compiled = torch.compile(lambda x: layer(x).relu(), fullgraph=True, backend=backend)
    with torch.no_grad():
        assert torch.equal(compiled(x), layer(x).relu())
    torch._dynamo.reset()


def test_fake_tensors_have_the_right_shape(make_quantized):
    from torch._subclasses.fake_tensor import FakeTensorMode

    layer = QuantizedLinear(make_quantized(16, 64, 32))
    with FakeTensorMode(allow_non_fake_inputs=True):
        y = layer(torch.empty(2, 7, 64, dtype=torch.bfloat16))
    assert y.shape == (2, 7, 16)
    assert y.dtype == torch.bfloat16
