"""Cluster-robust means: the textbook cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import OLS

from awqbench.errors import InvalidMeasurement
from awqbench.stats.clustered import clustered_contrast, clustered_mean


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=40).filter(lambda x: np.std(x) > 1e-3))
def test_single_items_give_the_textbook_t(values: list[float]) -> None:
    array = np.array(values)
    bounds = clustered_mean(array, np.arange(array.size))
    assert bounds.se == pytest.approx(stats.sem(array))
    assert bounds.df == pytest.approx(array.size - 1)
    plain = stats.ttest_1samp(array, 0.3)
    # The correction for skewness only ever makes a bound more cautious.
    assert bounds.p_greater(0.3) >= stats.t.sf(plain.statistic, array.size - 1) - 1e-9
    assert bounds.lower(0.05) <= array.mean() - stats.t.isf(0.05, array.size - 1) * bounds.se + 1e-9


def test_equal_clusters_are_a_t_test_of_their_means() -> None:
    array = np.random.default_rng(0).normal(size=40)
    codes = np.repeat(np.arange(8), 5)
    bounds = clustered_mean(array, codes)
    assert bounds.se == pytest.approx(stats.sem(array.reshape(8, 5).mean(1)))
    assert bounds.df == pytest.approx(7)


def test_two_groups_of_single_items_are_welch() -> None:
    array = np.random.default_rng(0).normal(size=30)
    member = np.arange(30) < 10
    bounds = clustered_contrast(array, member, np.arange(30))
    expected = stats.ttest_ind(array[member], array[~member], equal_var=False)
    assert bounds.estimate / bounds.se == pytest.approx(expected.statistic)


def test_what_hits_both_groups_of_a_cluster_cancels() -> None:
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(0, 5, 20), 2)
    member = np.tile([True, False], 20)
    bounds = clustered_contrast(shared + rng.normal(0, 0.1, 40), member, np.repeat(np.arange(20), 2))
    assert bounds.se < 0.05
    assert bounds.df == pytest.approx(19)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.4))
def test_bounds_and_p_values_agree(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    bounds = clustered_mean(rng.exponential(size=30), rng.integers(0, 9, 30))
    assert bounds.p_greater(bounds.lower(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert bounds.p_less(bounds.upper(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert bounds.lower(alpha) < bounds.estimate < bounds.upper(alpha)


def test_equal_crossed_clusters_are_cluster_robust_least_squares() -> None:
    """statsmodels divides by N - K, which clusters do not need; else the standard errors are the same."""
    rng = np.random.default_rng(0)
    values, codes, member = rng.normal(size=120), np.repeat(np.arange(12), 10), np.tile(np.arange(10) < 4, 12)
    theirs = OLS(values, np.column_stack([np.ones(120), member])).fit(cov_type="cluster", cov_kwds={"groups": codes})
    ours = clustered_contrast(values, member, codes)
    assert ours.estimate == pytest.approx(theirs.params[1])
    assert ours.se == pytest.approx(theirs.bse[1] * np.sqrt(118 / 119))


def test_the_skewness_is_fishers() -> None:
    values = np.random.default_rng(0).exponential(size=12)
    # sum U^3 / (sum U^2)^1.5 of unbiased moments is the k-statistic over the square root of n
    assert clustered_mean(values, np.arange(12)).skew == pytest.approx(stats.skew(values, bias=False) / np.sqrt(12))
    assert clustered_mean(values[:2], np.arange(2)).skew == 0


@given(st.lists(st.integers(1, 9), min_size=3, max_size=8), st.integers(0, 99))
def test_degrees_of_freedom_are_those_of_the_matrices_written_out(sizes: list[int], seed: int) -> None:
    """tr(G)^2 / tr(G^2), for independent items and for items of a cluster that always agree; the smaller counts."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    n, share = codes.size, np.array(sizes) / codes.size
    hat = np.eye(n) - 1 / n
    pick = (codes[:, None] == np.arange(len(sizes))).astype(float) / np.sqrt(1 - share)
    found = []
    for spread in (np.eye(n), (codes[:, None] == codes).astype(float)):
        matrix = pick.T @ hat @ spread @ hat @ pick
        found.append(np.trace(matrix) ** 2 / np.trace(matrix @ matrix))
    values = np.random.default_rng(seed).normal(size=n)
    assert clustered_mean(values, codes).df == pytest.approx(min(found))


def test_a_giant_cluster_is_about_one_draw() -> None:
    codes = np.r_[np.zeros(100, dtype=np.intp), 1 + np.repeat(np.arange(20), 5)]
    found = clustered_mean(np.random.default_rng(0).normal(size=200), codes)
    assert found.df > 1
    assert found.df < 1.5


def test_one_cluster_is_no_sample() -> None:
    with pytest.raises(InvalidMeasurement, match="one cluster"):
        clustered_contrast(np.arange(6.0), np.arange(6) < 3, np.array([0, 0, 0, 1, 2, 3]))
