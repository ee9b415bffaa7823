"""Plans of two-sided margins, against the textbook's formulas for normal estimates."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from awqbench.stats.clustered import MeanBounds
from awqbench.stats.verdict import items_needed


def seen(estimate: float, n: int = 400) -> MeanBounds:
    """A mean of n items with a standard deviation of 1 and a known spread."""
    return MeanBounds(estimate, 1 / math.sqrt(n), math.inf, n)


def textbook(distance: float, alpha: float, missed: float) -> int:
    return math.ceil(((stats.norm.isf(alpha) + stats.norm.isf(missed)) / distance) ** 2)


@pytest.mark.parametrize(
    ("estimate", "distance", "alpha", "missed"),
    [
        (0.0, 0.05, 0.05, 0.1),  # to pass in the middle, each side is missed by half of what may be missed
        (0.04, 0.01, 0.05, 0.2),  # near one limit the other one is never missed
        (-0.04, 0.01, 0.05, 0.2),
        (0.08, 0.03, 0.025, 0.2),  # to fail, a test looks at both tails
        (-0.08, 0.03, 0.025, 0.2),
    ],
)
def test_a_two_sided_plan_keeps_its_power(estimate: float, distance: float, alpha: float, missed: float) -> None:
    needed = items_needed(seen(estimate), 400, 0.05, 0.05, sided="two")
    assert needed == pytest.approx(textbook(distance, alpha, missed), rel=2e-3)


@pytest.mark.parametrize("estimate", [0.04, 0.08])
def test_a_one_sided_plan_looks_at_one_tail(estimate: float) -> None:
    needed = items_needed(seen(estimate), 400, 0.05, 0.05)
    assert needed == pytest.approx(textbook(abs(estimate - 0.05), 0.05, 0.2), rel=2e-3)


def test_on_the_limit_nothing_decides() -> None:
    assert items_needed(seen(0.05), 400, 0.05, 0.05, sided="two") is None
