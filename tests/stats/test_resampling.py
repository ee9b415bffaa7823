"""What is drawn: bootstrap, ratio of medians, sign flips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats import bootstrap_interval, median_interval, ratio_of_medians, sign_flip
from awqbench.stats.bootstrap import bootstrap_mean, resampled_medians, resamples

rng_seeds = st.integers(0, 2**16)


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, rng=1, method="BCa").confidence_interval
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_bootstrap_bounds_and_p_agree() -> None:
    bounds = bootstrap_mean(np.random.default_rng(0).exponential(size=50), draws=4999)
    for alpha in (0.01, 0.05, 0.2):
        assert bounds.p_greater(bounds.lower(alpha)) == pytest.approx(alpha, abs=0.002)
        assert bounds.p_less(bounds.upper(alpha)) == pytest.approx(alpha, abs=0.002)
    assert bounds.p_greater(-99) < 1e-3
    assert bounds.p_greater(99) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("value", [0.5, 0.1, 1e-9, 0.0])
def test_identical_values_give_a_point(value: float) -> None:
    assert bootstrap_interval(np.full(9, value)) == (value, value)


def test_few_clusters_widen_the_interval_as_students_t_does() -> None:
    """Five cluster means of 0.1 to 0.5: percentiles at sqrt(5 / 4) times t with 4 degrees of freedom."""
    bounds = bootstrap_mean(np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 3), np.repeat(np.arange(5), 3))
    assert (bounds.widen, bounds.df) == pytest.approx((np.sqrt(5 / 4), 4))
    plain = bounds.draws[int(np.floor(0.05 * (bounds.draws.size - 1)))]
    assert bounds.lower(0.05) < plain


def test_ratio_of_medians() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.lognormal(0.2, 0.1, 80), rng.lognormal(0, 0.1, 50)
    found = ratio_of_medians(a, b, seed=3)
    assert found.ratio == pytest.approx(np.median(a) / np.median(b))
    assert found.low < np.exp(0.2) < found.high
    assert found.p < 0.01
    assert found == ratio_of_medians(a, b, seed=3)
    back = ratio_of_medians(b, a, seed=3)
    assert (back.low, back.high) == pytest.approx((1 / found.high, 1 / found.low), rel=0.03)


def test_gaps_of_one_request_are_one_cluster() -> None:
    rng = np.random.default_rng(0)
    a = np.exp(np.repeat(rng.normal(0, 0.3, 10), 20) + rng.normal(0, 0.02, 200))
    requests = [f"r{i // 20}" for i in range(200)]
    naive = ratio_of_medians(a, a[::-1])
    honest = ratio_of_medians(a, a[::-1], a_clusters=requests, b_clusters=requests[::-1])
    assert honest.se_log > 1.5 * naive.se_log
    with pytest.raises(InvalidMeasurement, match="above 0"):
        ratio_of_medians([0.0, 1.0], [1.0, 2.0])


def test_the_interval_of_one_median() -> None:
    times = np.random.default_rng(0).lognormal(0.0, 0.2, 200)
    low, high = median_interval(times)
    # Of 200 values the exact 95 % interval has the 86th and the 115th as its ends (binomial).
    assert (low, high) == pytest.approx(tuple(np.sort(times)[[85, 114]]), rel=0.02)
    assert median_interval(times * 1000) == pytest.approx((low * 1000, high * 1000))
    requests = np.repeat(np.arange(20), 10)
    drifting = np.exp(np.repeat(np.random.default_rng(1).normal(0, 0.3, 20), 10)) * times
    apart, together = (np.ptp(np.log(median_interval(drifting, clusters))) for clusters in (None, requests))
    assert together > 1.5 * apart
    assert median_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    low, high = median_interval([0.125, 0.125])  # exp(log(0.125)) is not 0.125
    assert low <= 0.125 <= high


def test_three_times_are_no_proof_that_the_median_lies_between_them() -> None:
    low, high = median_interval([1.0, 1.1, 1.21])
    assert low < 1.0
    assert high > 1.21


def test_two_and_three_times_are_no_proof_of_another_speed() -> None:
    """Of two equal backends all times of one lie below those of the other in 1 of 6 runs, and 1 of 20."""
    for a, b in (([1.0, 1.02], [1.05, 1.1]), ([1.0, 1.01, 1.02], [1.03, 1.06, 1.1])):
        found = ratio_of_medians(a, b)
        assert found.low < min(a) / max(b)
        assert found.high > 1
        assert found.p > 0.05


@pytest.mark.parametrize(("values", "said"), [([1.0, 0.0], "above 0"), ([1.0], "1 items"), ([1.0, np.nan], "finite")])
def test_a_median_that_has_no_interval(values: list[float], said: str) -> None:
    with pytest.raises(InvalidMeasurement, match=said):
        median_interval(values)


@given(rng_seeds)
@settings(max_examples=25)
def test_a_resampled_median_is_that_of_the_resample(seed: int) -> None:
    """Clusters of any sizes, against numpy's median of every resample written out."""
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 7, 25), return_inverse=True)[1]
    values = rng.integers(0, 9, 25) / 4  # with ties
    counts = np.concatenate(list(resamples(int(codes.max()) + 1, 20, seed)))
    expected = [np.median(np.repeat(values, row[codes])) for row in counts]
    assert resampled_medians(values, codes, 20, seed).tolist() == expected


def test_resamples_draw_as_many_clusters_as_there_are_in_chunks_of_any_size() -> None:
    chunks = list(resamples(4000, 1500, 0))
    assert len(chunks) == 2
    assert sum(len(chunk) for chunk in chunks) == 1500
    assert all((chunk.sum(axis=1) == 4000).all() for chunk in chunks)
    assert np.concatenate(chunks).mean() == 1


def test_sign_flip_matches_the_exact_enumeration() -> None:
    differences = np.array([0.5, 0.3, -0.1, 0.9, 0.4, 0.2])
    signs = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_flip(differences, draws=20000) == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.zeros(5)) == 1
    clusters = ["a", "a", "a", "b", "b", "b"]
    assert sign_flip(differences, clusters) > 0.4  # two clusters have two signs


@given(rng_seeds)
@settings(max_examples=20, deadline=None)
def test_sign_flip_ignores_the_sign_of_the_whole(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.2, 1, 15)
    assert sign_flip(values, draws=499, seed=seed) == sign_flip(-values, draws=499, seed=seed)
