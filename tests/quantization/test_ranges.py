from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization import ranges
from awqbench.quantization.moments import Moments
from awqbench.quantization.ranges import FEW_BITS, SINGLE, fit_ranges
from awqbench.quantization.rounding import grid, grid_between, round_groups_

SIZE = 8


def _problem(seed: int, out: int = 5) -> tuple[torch.Tensor, Moments]:
    """A heavy-tailed weight of three groups, and an input."""
    generator = torch.Generator().manual_seed(seed)
    moments = Moments(3 * SIZE)
    moments.add(torch.randn(40, 3 * SIZE, generator=generator))
    return torch.randn(out, 3 * SIZE, generator=generator) ** 3, moments


def _loss(weight: torch.Tensor, gram: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, bits: int) -> float:
    error = round_groups_(weight.clone(), step, zero, bits) - weight
    return float(error @ gram @ error)


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_no_group_is_worse_than_with_its_whole_range(seed: int, bits: int, symmetric: bool) -> None:
    weight, moments = _problem(seed)
    grams = moments.blocks(SIZE)
    found = fit_ranges(weight, moments, bits, SIZE, symmetric)
    whole = grid(weight.view(5, 3, SIZE), bits, symmetric)
    for row in range(5):
        for group in range(3):
            part = weight.view(5, 3, SIZE)[row, group]
            after, before = (_loss(part, grams[group], s[row, group], z[row, group], bits) for s, z in (found, whole))
            assert after <= before * (1 + 1e-5)


def test_each_end_is_the_best_of_those_tried_in_turn() -> None:
    weight, moments = _problem(1, out=1)
    grams = moments.blocks(SIZE)
    step, zero = fit_ranges(weight, moments, 3, SIZE)
    for group in range(3):
        part, gram = weight[0, group * SIZE : (group + 1) * SIZE], grams[group]

        def loss(low: float, high: float, part: torch.Tensor = part, gram: torch.Tensor = gram) -> float:
            return _loss(part, gram, *grid_between(part.amin() * low, part.amax() * high, 3), 3)

        common = min(FEW_BITS, key=lambda share: loss(share, share))
        low = min((1.0, *SINGLE), key=lambda share: loss(common * share, common))
        high = min((1.0, *SINGLE), key=lambda share: loss(common * low, common * share))
        expected = loss(common * low, common * high)
        assert _loss(part, gram, step[0, group], zero[0, group], 3) == pytest.approx(expected, rel=1e-4)
    assert _loss(weight[0, :SIZE], grams[0], step[0, 0], zero[0, 0], 3) < _loss(
        weight[0, :SIZE], grams[0], *(part[0, 0] for part in grid(weight.view(1, 3, SIZE), 3)), 3
    )


def test_a_large_group_is_judged_by_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no correlation between stretches that is the same as the whole."""
    weight, moments = _problem(4)
    moments.gram.mul_(torch.block_diag(*[torch.ones(SIZE, SIZE)] * 3))
    whole = fit_ranges(weight, moments, 4, 3 * SIZE)
    monkeypatch.setattr(ranges, "_MOST_CORRELATED", SIZE)
    assert all(torch.equal(*pair) for pair in zip(fit_ranges(weight, moments, 4, 3 * SIZE), whole, strict=True))


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = _problem(2, out=10)
    whole = fit_ranges(weight, moments, 4, SIZE)
    monkeypatch.setattr(ranges, "_CHUNK_WEIGHTS", 3 * weight.shape[1])
    assert all(torch.equal(*pair) for pair in zip(fit_ranges(weight, moments, 4, SIZE), whole, strict=True))


def test_losses_that_are_not_finite_keep_the_whole_range() -> None:
    weight, moments = _problem(3)
    moments.gram[:SIZE, :SIZE] = torch.nan
    step, zero = fit_ranges(weight, moments, 4, SIZE)
    expected = grid(weight.view(5, 3, SIZE), 4)
    assert torch.equal(step[:, 0], expected[0][:, 0])
    assert torch.equal(zero[:, 0], expected[1][:, 0])
