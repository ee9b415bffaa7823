"""Means with cluster-robust intervals: hand-computed values and the two degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.suites.means import cluster_interval, mean_metric


def interval(values: list[float], clusters: list[str], **keys: object) -> tuple[float | None, float | None]:
    return cluster_interval(np.array(values), clusters, **keys)  # type: ignore[arg-type]


def test_singletons_give_the_ordinary_t_interval() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    low, high = interval(values, list("abcd"))
    expected = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_clusters_by_hand() -> None:
    """Residual sums -1 and 1, so SE = sqrt(2/1 * 2) / 4 = 0.5 with one degree of freedom."""
    low, high = interval([0.0, 1.0, 1.0, 1.0 + 1.0], ["a", "a", "b", "b"])
    assert high is not None
    assert low is not None
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)


def test_one_cluster_has_no_interval() -> None:
    assert interval([1.0, 2.0], ["a", "a"]) == (None, None)


def test_clusters_that_cancel_have_no_interval() -> None:
    assert interval([1.0, -1.0, 1.0, -1.0], ["a", "a", "b", "b"], bounds=(-1.0, 1.0)) == (None, None)


def test_all_right_is_not_certainty() -> None:
    """30 of 30: the exact bound 0.025^(1/30) = 0.884 stands, not an interval of width zero."""
    low, high = interval([1.0] * 30, [str(i) for i in range(30)], bounds=(0.0, 1.0))
    assert high == 1.0
    assert low == pytest.approx(0.025 ** (1 / 30))
    assert interval([0.0] * 30, [str(i) for i in range(30)], bounds=(0.0, 1.0))[1] == pytest.approx(
        1 - 0.025 ** (1 / 30)
    )


def test_log_ratio_shows_the_exponential() -> None:
    metric = mean_metric(
        "p", [1.0, 3.0], ["a", "b"], unit="perplexity", protocol="", higher_is_better=False, pairing="log-ratio"
    )
    assert metric.value == pytest.approx(math.exp(2))
    assert metric.ci_low is not None
    assert 0 < metric.ci_low < math.exp(2)


@pytest.mark.parametrize(("scores", "message"), [([], "no items"), ([1.0, math.nan], "not finite")])
def test_nothing_to_measure(scores: list[float], message: str) -> None:
    with pytest.raises(InvalidMeasurement, match=message):
        mean_metric("m", scores, ["a"] * len(scores), unit="", protocol="", higher_is_better=None)


def distance(scores: list[float], clusters: list[str], *, signed: bool = False) -> tuple[float | None, float | None]:
    found = mean_metric(
        "kl", scores, clusters, unit="nats", protocol="", higher_is_better=False, pairing="to-reference", signed=signed
    )
    return found.ci_low, found.ci_high


def test_a_distance_is_never_below_zero_and_a_change_may_be() -> None:
    low, high = distance([0.0, 1.0], ["a", "b"])
    assert low == 0.0
    assert high == pytest.approx(0.5 + stats.t.ppf(0.975, 1) * 0.5)
    assert distance([0.0, 1.0], ["a", "b"], signed=True)[0] == pytest.approx(0.5 - stats.t.ppf(0.975, 1) * 0.5)


def test_equal_distances_are_no_guess_unless_there_is_one_cluster() -> None:
    assert distance([0.0, 0.0], ["a", "b"]) == (0.0, 0.0)
    assert distance([-0.5, -0.5], ["a", "b"], signed=True) == (-0.5, -0.5)
    assert distance([0.0, 0.0], ["a", "a"]) == (None, None)


def test_a_mean_without_a_finite_exponential() -> None:
    with pytest.raises(InvalidMeasurement, match="p: a mean of 800 nats has no finite exponential"):
        mean_metric("p", [800.0, 800.0], ["a", "b"], unit="", protocol="", higher_is_better=False, pairing="log-ratio")


@pytest.mark.parametrize(
    ("unit", "most"), [("share of positions", 1.0), ("probability", 1.0), ("nats per token", None)]
)
def test_the_interval_of_a_distance_holds_distances(unit: str, most: float | None) -> None:
    """Two windows far apart: Student's t by itself goes from below zero to above one."""
    metric = mean_metric(
        "m", [0.1, 0.9], ["a", "b"], unit=unit, protocol="", higher_is_better=False, pairing="to-reference"
    )
    assert metric.ci_low == 0
    assert metric.ci_high == most if most else metric.ci_high > 1
    signed = metric.model_copy(update={"signed": True})
    assert signed.cut(-2.0, 2.0) == (-2.0, 2.0)
