"""What may be said of two series of timings, and averages."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from awqbench.kernelbench.series import BUCKETS, Series, bucket, claim, faster, geometric_mean, series

TIMES = st.floats(0.1, 1e4)
RUNS = st.lists(st.lists(TIMES, min_size=1, max_size=20), min_size=1, max_size=4)
SERIES = st.builds(Series, st.lists(TIMES, min_size=1, max_size=4).map(tuple), st.floats(0, 100))


def test_by_hand() -> None:
    made = series([[10, 11, 12], [9, 9, 30], [14, 13, 12]])
    assert made.runs == (11, 9, 13)
    assert (made.best, made.typical, made.worst) == (9, 11, 13)
    assert made.spread == pytest.approx(16.8)  # 9 + 0.8 * 21 = 25.8 at the 90th percentile, 9 at the 10th


@given(RUNS)
def test_order_of_statistics(runs: list[list[float]]) -> None:
    made = series(runs)
    assert made.best <= made.typical <= made.worst
    assert 0 <= made.spread <= max(max(run) - min(run) for run in runs) + 1e-9


@pytest.mark.parametrize("empty", [[], [[1.0], []]])
def test_no_replays_are_no_series(empty: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="without replays"):
        series(empty)


def test_faster_needs_the_worst_run_and_the_spread() -> None:
    peer = Series((20.0, 22.0, 21.0), 0.5)
    assert faster(Series((19.0, 19.4, 19.2), 0.5), peer)  # 19.4 + 0.5 < 20
    assert not faster(Series((19.0, 19.4, 19.2), 0.6), peer)  # 19.4 + 0.6 is not
    assert not faster(Series((15.0, 15.0, 19.8), 0.1), peer)  # one slow run and the peer's spread
    assert claim(Series((19.0, 19.4), 0.5), peer) == "faster"
    assert claim(peer, Series((19.0, 19.4), 0.5)) == "slower"
    assert claim(peer, peer) == "no claim"


@given(SERIES, SERIES)
def test_both_cannot_be_faster(a: Series, b: Series) -> None:
    assert not (faster(a, b) and faster(b, a))
    assert (claim(a, b) == "faster") == (claim(b, a) == "slower")


@given(SERIES, SERIES, st.floats(0, 50))
def test_noise_never_makes_a_claim(a: Series, b: Series, more: float) -> None:
    assume(not faster(a, b))
    assert not faster(Series(a.runs, a.spread + more), b)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9), st.floats(0.1, 10))
def test_geometric_mean(values: list[float], factor: float) -> None:
    mean = geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert geometric_mean([factor * value for value in values]) == pytest.approx(factor * mean)
    assert geometric_mean([1 / value for value in values]) == pytest.approx(1 / mean)


def test_geometric_mean_by_hand() -> None:
    assert geometric_mean([0.5, 2, 8]) == pytest.approx(2)
    with pytest.raises(ValueError, match="nothing"):
        geometric_mean([])


@given(st.integers(1, 10**6))
def test_every_batch_size_has_a_bucket(m: int) -> None:
    assert sum(low <= m <= high for low, high in BUCKETS) == 1
    assert bucket(m) == {1: "1-16", 17: "17-64", 65: "65-256", 257: "257+"}[max(low for low, _ in BUCKETS if low <= m)]
