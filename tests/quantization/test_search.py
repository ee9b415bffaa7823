from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.losses import Moments, OutputLoss
from awqbench.quantization.search import scale_for, search_scale, trial_weight

BITS, GROUP = 4, 16


def _problem(seed: int) -> tuple[list[torch.Tensor], torch.Tensor, Moments]:
    """Two linears whose shared input has a few channels 30 times larger than the rest."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(60, 32, generator=generator)
    inputs[:, torch.randperm(32, generator=generator)[:3]] *= 30
    weights = [torch.randn(out, 32, generator=generator) for out in (8, 24)]
    return weights, inputs.abs().mean(dim=0), Moments(inputs)


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
    loss = OutputLoss(weights, moments)
    scaling = search_scale(weights, magnitude, loss, BITS, GROUP)
    assert scaling is not None
    assert scaling.loss <= scaling.loss_before
    assert scaling.loss_before == loss([trial_weight(weight, torch.ones(32), BITS, GROUP) for weight in weights])


def test_outlier_channels_are_worth_scaling() -> None:
    weights, magnitude, moments = _problem(0)
    scaling = search_scale(weights, magnitude, OutputLoss(weights, moments), BITS, GROUP)
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
