import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from awqbench.ops import QuantizedLinear, cpu
from awqbench.ops.op import w4a16_linear


class CountsCalls(TorchDispatchMode):
    """Counts the calls of the operator."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += function is w4a16_linear
        return function(*args, **(kwargs or {}))


KERNELS = ["dequantize", *(["cpu"] if cpu.unavailable() is None else [])]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (0, 64), (64,)])
@pytest.mark.parametrize(("bits", "biased"), [(4, False), (4, True), (8, True)])
def test_opcheck(kernel, shape, bits, biased, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32, bits), torch.ones(16) if biased else None, kernel=kernel)
    arguments = (torch.randn(shape), layer.codes, layer.scales, layer.zeros, layer.bias, 32, layer.width, kernel)
    torch.library.opcheck(w4a16_linear, arguments)


@pytest.mark.skipif(cpu.unavailable() is not None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_gives_the_same_bits_with_and_without_the_dispatcher(dtype, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32), torch.ones(16), dtype=dtype, kernel="cpu")
    x = torch.randn(2, 3, 64).to(dtype)
    with CountsCalls() as counter:
        watched = layer(x)
    assert counter.calls == 1
    assert torch.equal(layer(x), watched)


@pytest.mark.skipif(cpu.unavailable() is not None, reason="no C++ compiler")
def test_tracers_and_transforms_see_the_operator(make_quantized):
    layer, x = QuantizedLinear(make_quantized(16, 64, 32), kernel="cpu"), torch.randn(3, 64)
    graph = make_fx(layer)(x).graph
    assert [node.target for node in graph.nodes if "w4a16" in str(node.target)] == [w4a16_linear]
    assert torch.equal(torch.func.vmap(layer)(x), layer(x))
    exported = torch.export.export(layer, (x,))
    assert torch.equal(exported.module()(x), layer(x))


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
