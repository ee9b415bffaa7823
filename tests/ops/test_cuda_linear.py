"""The layer with the CUDA layout, on the CPU: what a GPU gets, multiplied by the operator's reference."""

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.errors import BackendUnavailable, UserError
from awqbench.ops import QuantizedLinear, cuda_binding, select_kernel
from awqbench.quantization.tensor import QuantizedTensor

SIZES = {"dtype": torch.float16, "device": "cuda", "out_features": 72, "group_size": 64}
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


def same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("codes", "scales", "zeros"))
    return tensors and (a.bits, a.group_size) == (b.bits, b.group_size)


@settings(deadline=None, max_examples=30)
@given(
    out=st.integers(1, 130), groups=st.integers(1, 4), group=st.sampled_from([32, 64, 128]), rows=st.integers(0, 5),
    bits=st.sampled_from([2, 3, 4]), biased=st.booleans(), scales=st.sampled_from([torch.float16, torch.float32]),
)  # fmt: skip
def test_any_shape_agrees_with_float64_and_comes_back_exactly(
    out, groups, group, rows, bits, biased, scales, make_quantized
):
    made = make_quantized(out, groups * group, group, bits)
    quantized = QuantizedTensor(made.codes, made.scales.to(scales), made.zeros, bits, group)
    bias = torch.randn(out) if biased else None
    layer = QuantizedLinear(quantized, bias, kernel="cuda")
    x = torch.randn(rows, groups * group)
    expected = x.double() @ quantized.dequantize(torch.float64).T + (0 if bias is None else bias.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5 * (1 + groups * group * 0.3))
    assert same(layer.to_quantized(), quantized)
    assert torch.equal(layer.scales, quantized.scales)


def test_module_to_copies_and_state_dicts_keep_the_weight(make_quantized):
    quantized = make_quantized(72, 128, 64)
    layer = QuantizedLinear(quantized, torch.ones(72), kernel="cuda").to(torch.bfloat16)
    assert same(layer.to_quantized(), quantized)
    x = torch.randn(2, 128, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    other = QuantizedLinear(make_quantized(72, 128, 64, seed=1), torch.zeros(72), kernel="cuda", dtype=torch.bfloat16)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert "kernel='cuda'" in repr(layer)


def test_half_a_byte_per_weight_and_two_and_a_half_per_group(make_quantized):
    layer = QuantizedLinear(make_quantized(128, 256, 64), kernel="cuda")
    assert sum(t.numel() * t.element_size() for t in layer.state_dict().values()) == 128 * 128 + 128 * 4 * 5 // 2
    assert not list(layer.parameters())


def test_what_the_layout_does_not_hold_is_refused_by_name(make_quantized):
    for quantized, reason in [
        (make_quantized(16, 96, 48), "groups of 48"),
        (make_quantized(16, 64, 32, bits=8), "8 bits"),
        (QuantizedTensor(*_zeros_of_16(make_quantized(16, 64, 32)), 4, 32), "zero points above 15"),
    ]:
        with pytest.raises(UserError, match=reason):
            QuantizedLinear(quantized, kernel="cuda")
        assert QuantizedLinear(quantized).kernel != "cuda"


def _zeros_of_16(quantized):
    return quantized.codes, quantized.scales, torch.full_like(quantized.zeros, 16)


def test_a_whole_row_may_be_one_group(make_quantized):
    quantized = make_quantized(72, 96, 96)
    layer, x = QuantizedLinear(quantized, kernel="cuda"), torch.randn(3, 96)
    torch.testing.assert_close(layer(x), x @ quantized.dequantize().T)


def test_a_cpu_never_gets_it_by_itself(make_quantized):
    assert QuantizedLinear(make_quantized(72, 128, 64), dtype=torch.float16).kernel != "cuda"


@no_gpu
def test_without_a_gpu_the_reason_is_logged_once(caplog):
    cuda_binding._unavailable.cache_clear()
    with caplog.at_level(logging.WARNING, "awqbench"):
        chosen = [select_kernel("auto", **SIZES) for _ in range(3)]
    assert chosen == ["dequantize"] * 3
    assert [record.message for record in caplog.records] == [
        "falling back to a slow CUDA path: torch sees no CUDA device"
    ]
    with pytest.raises(BackendUnavailable, match="no CUDA device"):
        select_kernel("cuda", **SIZES)


def test_auto_on_a_gpu_looks_for_the_library_only_where_it_fits(monkeypatch):
    """Only the GPU is faked: whether there is one that runs the kernels."""
    asked = []
    monkeypatch.setattr("awqbench.ops.cuda.unavailable", lambda device: asked.append(device))
    for change, expected in [
        ({}, "cuda"), ({"dtype": torch.bfloat16}, "cuda"), ({"group_size": 96, "in_features": 96}, "cuda"),
        ({"dtype": torch.float32}, "dequantize"), ({"bits": 8}, "dequantize"), ({"half_scales": False}, "dequantize"),
        ({"nibble_zeros": False}, "dequantize"), ({"group_size": 96, "in_features": 192}, "dequantize"),
        ({"group_size": 96}, "dequantize"), ({"bits": 3}, "cuda"),
    ]:  # fmt: skip
        assert select_kernel("auto", **{**SIZES, **change}) == expected, change
    assert len(asked) == 4
    with pytest.raises(UserError, match="float32 on cuda"):
        select_kernel("cuda", **{**SIZES, "dtype": torch.float32})
