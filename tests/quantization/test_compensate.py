from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization import compensate as compensating
from awqbench.quantization.compensate import compensate, shrinkage
from awqbench.quantization.moments import Moments
from awqbench.quantization.rounding import quantize


def _problem(seed: int, tokens: int = 40) -> tuple[torch.Tensor, Moments]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(tokens, 24, generator=generator) @ torch.randn(24, 24, generator=generator)
    moments = Moments(24)
    moments.add(inputs)
    return torch.randn(9, 24, generator=generator), moments


@given(
    st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.sampled_from([8, 24]), st.booleans(),
    st.sampled_from([3, 40]),
)  # fmt: skip
def test_no_row_is_worse_than_the_nearest_codes(
    seed: int, bits: int, group_size: int, symmetric: bool, tokens: int
) -> None:
    """Also from fewer tokens than channels."""
    weight, moments = _problem(seed, tokens)
    nearest = quantize(weight, bits, group_size, symmetric)
    found, _ = compensate(weight, nearest, moments, 0.03)
    after, before = (moments.row_energy(each.dequantize() - weight) for each in (found, nearest))
    assert (after <= before).all()
    assert torch.equal(found.zeros, nearest.zeros)
    assert int(found.codes.max()) < 2**bits


def test_correlated_channels_are_worth_it() -> None:
    weight, moments = _problem(0)
    nearest = quantize(weight, 3, 8)
    found, damping = compensate(weight, nearest, moments, 0.03)
    assert moments.energy(found.dequantize() - weight) < 0.4 * moments.energy(nearest.dequantize() - weight)
    assert damping == 0.03


def test_few_tokens_are_trusted_less() -> None:
    def of(tokens: int) -> float:
        moments = Moments(24)
        moments.tokens = tokens
        return shrinkage(moments, 0.03)

    assert of(24) == pytest.approx(9 * 0.03)
    assert of(192) == pytest.approx(2 * 0.03)
    assert of(10**9) == pytest.approx(0.03)
    assert of(1) > of(24)
    wide = Moments(10**4)
    wide.tokens = 1
    assert shrinkage(wide, 0.9) == 10.0


def test_the_same_twice() -> None:
    weight, moments = _problem(1)
    nearest = quantize(weight, 4, 8)
    one, other = compensate(weight, nearest, moments, 0.03)[0], compensate(weight, nearest, moments, 0.03)[0]
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scales, other.scales)


def test_chunks_of_rows_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = _problem(4)
    nearest = quantize(weight, 4, 8)
    whole, _ = compensate(weight, nearest, moments, 0.03)
    monkeypatch.setattr(compensating, "_CHUNK_WEIGHTS", 4 * 24)
    parts, _ = compensate(weight, nearest, moments, 0.03)
    # Not bit for bit: a matrix product of fewer rows may add up in another order.
    assert parts.dequantize() == pytest.approx(whole.dequantize(), abs=1e-3)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_dead_channels_and_an_outlier_of_1e4_are_survived(bits: int) -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(50, 24, generator=generator)
    inputs[:, 3] = 0.0
    inputs[:, 9] *= 1e4
    moments = Moments(24)
    moments.add(inputs)
    weight = torch.randn(6, 24, generator=generator)
    found, _ = compensate(weight, quantize(weight, bits, 8), moments, 0.03)
    assert found.dequantize().isfinite().all()
    assert moments.energy(found.dequantize() - weight) < moments.energy(weight)


def test_no_token_but_zeros_keeps_the_nearest_codes_values() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    moments = Moments(8)
    moments.add(torch.zeros(5, 8))
    nearest = quantize(weight, 4, 8)
    found, _ = compensate(weight, nearest, moments, 0.03)
    assert (found.dequantize() - weight).norm() <= (nearest.dequantize() - weight).norm() * 1.001
