from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization import search
from awqbench.quantization.losses import OutputLoss
from awqbench.quantization.moments import Moments
from awqbench.quantization.search import (
    FINALISTS,
    RATIOS,
    diagonal_losses,
    finalists,
    sampled,
    scale_for,
    search_scale,
    trial_weight,
)

BITS, GROUP = 4, 16


def _problem(seed: int) -> tuple[list[torch.Tensor], torch.Tensor, Moments]:
    """Two linears whose shared input has a few channels 30 times larger than the rest."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(60, 32, generator=generator)
    inputs[:, torch.randperm(32, generator=generator)[:3]] *= 30
    weights = [torch.randn(out, 32, generator=generator) for out in (8, 24)]
    return weights, inputs.abs().mean(dim=0), _moments(inputs)


def _moments(inputs: torch.Tensor) -> Moments:
    moments = Moments(inputs.shape[1])
    moments.add(inputs)
    return moments


def test_the_scale_is_a_balanced_power() -> None:
    scale = scale_for(torch.tensor([1.0, 4.0, 16.0]), 0.5)
    assert scale.tolist() == pytest.approx([0.5, 1.0, 2.0])
    assert scale_for(torch.tensor([0.0, 3.0]), 0.0).tolist() == [1.0, 1.0]


def test_a_dead_channel_gets_the_floor() -> None:
    scale = scale_for(torch.tensor([0.0, 1.0]), 0.5)
    assert scale.tolist() == pytest.approx([0.01, 100.0])


def test_channels_that_are_not_finite_are_left_alone() -> None:
    assert scale_for(torch.tensor([torch.nan, 4.0]), 0.5).tolist() == [1.0, 1.0]


@given(st.integers(0, 2**31))
def test_the_chosen_scale_is_never_worse_than_rounding_to_nearest(seed: int) -> None:
    weights, magnitude, moments = _problem(seed)
    loss = OutputLoss(weights, [moments, moments])
    scaling = search_scale(weights, magnitude, loss, BITS, GROUP)
    assert scaling is not None
    assert scaling.loss <= scaling.loss_before
    assert scaling.loss_before == loss([trial_weight(weight, torch.ones(32), BITS, GROUP) for weight in weights])


def test_outlier_channels_are_worth_scaling() -> None:
    weights, magnitude, moments = _problem(0)
    scaling = search_scale(weights, magnitude, OutputLoss(weights, [moments, moments]), BITS, GROUP)
    assert scaling is not None
    assert scaling.ratio > 0
    assert scaling.loss < 0.5 * scaling.loss_before


def test_all_twenty_ratios_are_tried_and_the_weights_left_alone() -> None:
    weights, magnitude, _ = _problem(1)
    before = [weight.clone() for weight in weights]
    tried: list[float] = []

    def loss(trial: list[torch.Tensor]) -> float:
        tried.append(float(trial[0].sum()))
        return float(len(tried) != 8)

    scaling = search_scale(weights, magnitude, loss, BITS, GROUP)
    assert len(tried) == 20
    assert scaling is not None
    assert scaling.ratio == pytest.approx(7 / 20)
    assert all(torch.equal(weight, copy) for weight, copy in zip(weights, before, strict=True))


def test_a_trial_that_is_not_finite_cannot_win_and_none_finite_gives_none() -> None:
    weights, magnitude, _ = _problem(3)
    values = iter([math.nan, math.inf, 3.0, 2.0, *[4.0] * 16])
    scaling = search_scale(weights, magnitude, lambda _: next(values), BITS, GROUP)
    assert scaling is not None
    assert scaling.ratio == pytest.approx(3 / 20)
    assert search_scale(weights, magnitude, lambda _: math.nan, BITS, GROUP) is None


@given(st.integers(0, 2**31), st.booleans())
def test_without_correlation_the_quick_losses_are_the_exact_ones(seed: int, symmetric: bool) -> None:
    weights, magnitude, moments = _problem(seed)
    energy = moments.gram.diagonal().clone()
    quick = diagonal_losses(weights[1], magnitude, energy, BITS, GROUP, symmetric)
    assert set(quick) == set(RATIOS)
    for ratio, loss in quick.items():
        error = trial_weight(weights[1], scale_for(magnitude, ratio), BITS, GROUP, symmetric) - weights[1]
        assert loss == pytest.approx(float((error.square() * energy).sum()), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_ratio_or_one_about_as_good_is_among_the_finalists(seed: int) -> None:
    weights, magnitude, moments = _problem(seed)
    both = [moments, moments]
    loss = OutputLoss(weights, both)
    best = search_scale(weights, magnitude, loss, BITS, GROUP)
    ratios = finalists(weights, magnitude, both, BITS, GROUP)
    found = search_scale(weights, magnitude, loss, BITS, GROUP, ratios=ratios)
    assert best is not None
    assert found is not None
    assert 0.0 in ratios
    assert len(ratios) <= FINALISTS + 1
    assert found.ratio in ratios
    assert best.loss <= found.loss <= min(1.5 * best.loss, found.loss_before)


def test_finalists_are_the_best_by_brute_force_where_nothing_correlates() -> None:
    weights, magnitude, moments = _problem(2)
    moments.gram.mul_(torch.eye(32))
    losses = {
        ratio: OutputLoss(weights, [moments, moments])(
            [trial_weight(weight, scale_for(magnitude, ratio), BITS, GROUP) for weight in weights]
        )
        for ratio in RATIOS
    }
    expected = sorted(RATIOS, key=lambda ratio: losses[ratio])[:FINALISTS]
    assert finalists(weights, magnitude, [moments, moments], BITS, GROUP) == sorted({0.0, *expected})


def test_a_sample_holds_evenly_spaced_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.arange(22.0).view(11, 2).double()
    assert torch.equal(sampled(weight), weight.float())
    monkeypatch.setattr(search, "SAMPLED_ROWS", 4)
    assert sampled(weight)[:, 0].tolist() == [0.0, 6.0, 12.0, 18.0]


def test_moments_that_are_not_finite_still_give_finalists() -> None:
    weights, magnitude, _ = _problem(5)
    moments = _moments(torch.full((3, 32), torch.nan))
    assert 0.0 in finalists(weights, magnitude, [moments, moments], BITS, GROUP)
