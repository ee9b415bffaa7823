"""What is drawn: bootstrap, ratio of medians, sign flips, the worst group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats import bootstrap_interval, ratio_of_medians, sign_flip, worst_group
from awqbench.stats.bootstrap import bootstrap_mean, resample_statistic
from awqbench.stats.medians import log_ratio_bounds

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


def test_identical_values_give_a_point() -> None:
    assert bootstrap_interval(np.full(9, 0.5)) == (0.5, 0.5)


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


@pytest.mark.parametrize("n", [5, 12, 40])
def test_ratio_of_medians_raises_no_more_false_alarms_than_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = rng.lognormal(0, 0.2, (400, 2, n))
    alarms = sum(log_ratio_bounds(a, b, i, draws=399).lower(0.05) > 0 for i, (a, b) in enumerate(draws))
    assert alarms <= stats.binom.isf(1e-3, 400, 0.05)


def test_gaps_of_one_request_are_one_cluster() -> None:
    rng = np.random.default_rng(0)
    a = np.exp(np.repeat(rng.normal(0, 0.3, 10), 20) + rng.normal(0, 0.02, 200))
    requests = [f"r{i // 20}" for i in range(200)]
    naive = ratio_of_medians(a, a[::-1])
    honest = ratio_of_medians(a, a[::-1], a_clusters=requests, b_clusters=requests[::-1])
    assert honest.se_log > 1.5 * naive.se_log
    with pytest.raises(InvalidMeasurement, match="above 0"):
        ratio_of_medians([0.0, 1.0], [1.0, 2.0])


def test_clusters_of_one_size_are_drawn_as_those_of_many_are() -> None:
    values, codes = np.random.default_rng(0).exponential(size=60), np.repeat(np.arange(12), 5)
    even = resample_statistic(lambda rows: np.median(rows, axis=1), values, codes, 999, 0)
    uneven = resample_statistic(lambda rows: np.median(rows, axis=1), np.r_[values, 0.7], np.r_[codes, 0], 999, 0)
    assert np.quantile(even, [0.05, 0.95]) == pytest.approx(np.quantile(uneven, [0.05, 0.95]), abs=0.1)


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


def test_the_worst_of_equal_groups_is_no_news() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(list("abcdefgh"), 30)
    found = [worst_group(rng.normal(size=240), groups, draws=199, seed=i) for i in range(200)]
    assert sum(w.p < 0.05 for w in found) <= stats.binom.isf(1e-3, 200, 0.05)
    assert np.mean([w.excess for w in found]) == pytest.approx(np.mean([w.excess_if_equal for w in found]), abs=0.03)
    harmed = worst_group(rng.normal(size=240) + 0.8 * (groups == "c"), groups)
    assert (harmed.group, harmed.groups) == ("c", 8)
    assert harmed.p < 0.01
    assert harmed.estimate < harmed.upper


def test_a_worst_group_needs_groups() -> None:
    with pytest.raises(InvalidMeasurement):
        worst_group([1, 2, 3], ["a", "a", "a"])
