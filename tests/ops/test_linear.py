import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.ops import QuantizedLinear, cpu
from awqbench.quantization.tensor import QuantizedTensor

KERNELS = ["dequantize", *(["cpu"] if cpu.unavailable() is None else [])]


def same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("codes", "scales", "zeros"))
    return tensors and (a.bits, a.group_size) == (b.bits, b.group_size)


@settings(deadline=None, max_examples=40)
@given(
    out=st.integers(1, 40), groups=st.integers(1, 4), bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([1, 3, 4, 16, 32, 43, 64, 128]), rows=st.integers(0, 5), biased=st.booleans(),
)  # fmt: skip
def test_any_shape_agrees_with_float64(out, groups, bits, group, rows, biased, make_quantized):
    quantized = make_quantized(out, groups * group, group, bits)
    bias = torch.randn(out) if biased else None
    layer = QuantizedLinear(quantized, bias)
    x = torch.randn(rows, groups * group)
    expected = x.double() @ quantized.dequantize(torch.float64).T + (0 if bias is None else bias.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5 * (1 + groups * group * 0.3))
    assert same(layer.to_quantized(), quantized)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(64,), (0, 64), (1, 64), (2, 3, 64), (2, 0, 64)])
def test_leading_dimensions_and_no_rows_at_all(kernel, shape, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32), torch.ones(16), kernel=kernel)
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_quantized().dequantize(), layer.bias))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_strided_view_is_read_right(kernel, make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32), kernel=kernel)
    x = torch.randn(4, 3, 128)[:, ::2, ::2]
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=0, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_module_to_keeps_the_scales(kernel, make_quantized):
    """A float16 scale cast to bfloat16 and back would lose three bits."""
    quantized = make_quantized(16, 64, 32)
    layer = QuantizedLinear(quantized, torch.ones(16), kernel=kernel).to(torch.bfloat16)
    assert same(layer.to_quantized(), quantized)
    assert layer(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_in_float64(kernel, make_quantized):
    layer, x = QuantizedLinear(make_quantized(16, 64, 32), torch.ones(16), kernel=kernel).double(), torch.randn(2, 64)
    found, single = layer(x.double()), QuantizedLinear(layer.to_quantized(), torch.ones(16), kernel=kernel)(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "codes"), [(2, 128 * 128), (4, 128 * 128), (8, 128 * 256)])
def test_only_packed_weights_are_held(bits, codes, make_quantized):
    layer = QuantizedLinear(make_quantized(128, 256, 64, bits))
    assert sum(t.numel() * t.element_size() for t in layer.state_dict().values()) == codes + 128 * 4 * 3
    assert not list(layer.parameters())


def with_scales(quantized, scales):
    return QuantizedTensor(quantized.codes, scales, quantized.zeros, quantized.bits, quantized.group_size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scales_that_float16_holds_run_the_same_kernel_and_come_back_in_their_own_type(dtype, make_quantized):
    half = make_quantized(16, 64, 32)
    coarse = half.scales.bfloat16()
    quantized = with_scales(half, coarse.to(dtype))
    layer = QuantizedLinear(quantized)
    assert layer.kernel == QuantizedLinear(half).kernel
    assert layer.get_buffer("scale_bits").dtype == torch.int16
    assert same(layer.to_quantized(), quantized)
    assert layer.scales.dtype == dtype
    x = torch.randn(3, 64)
    assert torch.equal(layer(x), QuantizedLinear(with_scales(half, coarse.half()))(x))


@pytest.mark.parametrize(("dtype", "value"), [(torch.bfloat16, 2.0**-30), (torch.float32, 1e-3 + 1e-9)])
def test_scales_that_float16_does_not_hold_are_never_rounded(dtype, value, make_quantized):
    quantized = make_quantized(16, 64, 32)
    quantized = with_scales(quantized, torch.full((16, 2), value, dtype=dtype))
    layer = QuantizedLinear(quantized)
    assert layer.kernel == "dequantize"
    assert same(layer.to_quantized(), quantized)
    x = torch.randn(3, 64)
    expected = x.double() @ quantized.dequantize(torch.float64).T
    torch.testing.assert_close(layer(x).double() / value, expected / value, rtol=1e-5, atol=1e-3)
    with pytest.raises(UserError, match="no float16 numbers"):
        QuantizedLinear(quantized, kernel="cpu")


def test_copies_and_state_dicts_work(make_quantized):
    layer = QuantizedLinear(make_quantized(16, 64, 32), torch.randn(16))
    other = QuantizedLinear(make_quantized(16, 64, 32, seed=1), torch.randn(16))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 64)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_the_kernel_is_named_in_the_repr(make_quantized):
    assert "kernel='dequantize'" in repr(QuantizedLinear(make_quantized(8, 12, 4)))
