"""The interval of a share: exact for independent items, wider for clusters, honest for rare events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats.proportion import share_interval


def test_independent_items_are_binomial() -> None:
    for count in (0, 1, 7, 20):
        hits = np.arange(20) < count
        exact = stats.binomtest(count, 20).proportion_ci(0.95, method="exact")
        assert share_interval(hits) == pytest.approx((exact.low, exact.high))


def test_doubled_items_are_no_more_evidence() -> None:
    """Each item twice in one cluster: the design effect is about 2, and the interval about that of the items."""
    hits = np.arange(200) % 10 == 0
    twice, clusters = np.repeat(hits, 2), np.repeat(np.arange(200), 2).tolist()
    single, doubled = share_interval(hits), share_interval(twice, clusters)
    assert doubled == pytest.approx(single, abs=2e-3)
    assert share_interval(twice)[1] < doubled[1]


@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 2**16))
def test_holds_the_share(clusters: int, size: int, seed: int) -> None:
    names = np.repeat(np.arange(clusters), size)
    hits = np.random.default_rng(seed).random(names.size) < 0.1
    low, high = share_interval(hits, names.tolist())
    assert 0 <= low <= hits.mean() <= high <= 1
    assert low < high


def test_coverage_with_clusters() -> None:
    """2 % of clusters of four turn whole: 95 % intervals hold the truth in at least 93 % of 400 draws."""
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(150), 4).tolist()
    held = 0
    for _ in range(400):
        low, high = share_interval(np.repeat(rng.random(150) < 0.02, 4), names)
        held += low <= 0.02 <= high
    assert held / 400 >= 0.93


@pytest.mark.parametrize("bad", [[0.5, 1.0], [1.0], [0.0, float("nan")]])
def test_refused(bad: list[float]) -> None:
    with pytest.raises(InvalidMeasurement):
        share_interval(bad)
