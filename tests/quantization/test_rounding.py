from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.rounding import fake_quantize, quantize, round_groups_

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([4, 16, 32]))


def _weight(seed: int, shape: tuple[int, int], exponent: float, shift: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) + shift) * 10.0**exponent


def test_codes_are_computed_against_the_stored_float16_step() -> None:
    # Range 3 over 15 steps is 0.2, stored as 0.199951171875: 0.5 is then 2.5006 steps, which rounds to 3, not to 2.
    tensor = quantize(torch.tensor([[-1.0, 0.0, 0.5, 2.0]]), bits=4, group_size=4)
    assert tensor.scales.tolist() == [[0.199951171875]]
    assert tensor.zeros.tolist() == [[5]]
    assert tensor.codes.tolist() == [[0, 5, 8, 15]]
    expected = torch.tensor([[-5.0, 0.0, 3.0, 10.0]]) * 0.199951171875
    assert torch.equal(tensor.dequantize(), expected)


def test_three_bits() -> None:
    tensor = quantize(torch.tensor([[-1.5, 0.0, 1.0, 2.0]]), bits=3, group_size=4)
    assert (tensor.scales.item(), tensor.zeros.item(), tensor.codes.tolist()) == (0.5, 3, [[0, 3, 5, 7]])


def test_symmetric_codes_by_hand() -> None:
    # The largest magnitude, 3, makes the step 2 * 3 / 15 = 0.4 (0.39990234375 in float16), and 8 stands for 0.
    tensor = quantize(torch.tensor([[-3.0, 0.0, 0.5, 1.2]]), bits=4, group_size=4, symmetric=True)
    assert tensor.scales.tolist() == [[0.39990234375]]
    assert (tensor.zeros.tolist(), tensor.codes.tolist()) == ([[8]], [[0, 8, 9, 11]])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_zero_points_are_half_the_codes(bits: int) -> None:
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert (quantize(weight, bits, 4, symmetric=True).zeros == 2 ** (bits - 1)).all()


def test_one_group_can_span_the_row() -> None:
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    assert quantize(weight, 8, 8).scales.shape == (3, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_one_sided_group_keeps_its_largest_value(sign: int) -> None:
    weight = sign * torch.tensor([[10.0, 11.0, 12.0, 15.0]])
    assert quantize(weight, bits=4, group_size=4).dequantize().abs().max() == 15.0


def test_a_group_of_zeros_stays_zero() -> None:
    assert not quantize(torch.zeros(2, 8), bits=4, group_size=8).dequantize().any()


def test_an_outlier_of_1e4_is_kept_and_stays_in_its_group() -> None:
    weight = torch.full((1, 8), 0.5)
    weight[0, 0] = 1e4
    value = quantize(weight, bits=4, group_size=4).dequantize()
    assert value[0, 0] == pytest.approx(1e4, rel=1e-3)
    assert value[0, 4:] == pytest.approx(weight[0, 4:], rel=1e-3)


@given(
    st.integers(0, 2**31), SIZES, st.sampled_from([2, 3, 4, 8]), st.floats(-4, 3), st.floats(-3, 3), st.booleans()
)  # fmt: skip
def test_error_is_at_most_half_a_step(
    seed: int, size: tuple[int, int, int], bits: int, exponent: float, shift: float, symmetric: bool
) -> None:
    out, groups, group_size = size
    weight = _weight(seed, (out, groups * group_size), exponent, shift)
    tensor = quantize(weight, bits, group_size, symmetric)
    assert int(tensor.codes.max()) < 2**bits
    assert int(tensor.zeros.max()) < 2**bits
    step = tensor.scales.float().repeat_interleave(group_size, dim=1)
    # The float16 step may be short of the range by half its own spacing, at worst a subnormal's, at each of the codes.
    spacing = torch.maximum(step * 2.0**-10, torch.full_like(step, 2.0**-24))
    bound = step / 2 + 2**bits * spacing
    assert ((weight - tensor.dequantize()).abs() <= bound).all()


@given(st.integers(0, 2**31), SIZES, st.sampled_from([2, 3, 4, 8]), st.floats(-4, 3), st.booleans())
def test_fake_quantization_is_the_dequantized_codes_bit_for_bit(
    seed: int, size: tuple[int, int, int], bits: int, exponent: float, symmetric: bool
) -> None:
    out, groups, group_size = size
    weight = _weight(seed, (out, groups * group_size), exponent, 0.3)
    before = weight.clone()
    value = quantize(weight, bits, group_size, symmetric).dequantize()
    assert torch.equal(fake_quantize(weight, bits, group_size, symmetric), value)
    assert torch.equal(weight, before)


def test_rounding_on_a_given_grid_stays_on_it() -> None:
    groups = torch.tensor([[-9.0, -0.6, 0.4, 9.0]])
    value = round_groups_(groups, torch.tensor([[0.5]]), torch.tensor([[2.0]]), bits=3)
    assert value.tolist() == [[-1.0, -0.5, 0.5, 2.5]]
