"""Cluster-robust means: the textbook cases, and honest false-alarm rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

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


@pytest.mark.parametrize("clusters", [4, 12, 40])
def test_false_alarms_with_unequal_clusters(clusters: int) -> None:
    """A 5 % test raises 5 % false alarms; treating the items as independent would raise far more."""
    rng = np.random.default_rng(clusters)
    alarms = naive = 0
    for _ in range(1000):
        codes = np.repeat(np.arange(clusters), rng.integers(1, 12, clusters))
        values = rng.normal(size=clusters)[codes] + rng.normal(0, 0.5, codes.size)
        alarms += clustered_mean(values, codes).p_greater(0) < 0.05
        naive += clustered_mean(values, np.arange(codes.size)).p_greater(0) < 0.05
    assert alarms <= stats.binom.isf(1e-4, 1000, 0.05)
    assert alarms >= 20
    assert naive > 120


def test_skewed_losses_are_not_passed_too_easily() -> None:
    """Exponential losses with the margin at their mean: plain t passes 10 % of the time, the corrected one near 5 %."""
    rng = np.random.default_rng(0)
    passed = sum(clustered_mean(rng.exponential(size=30), np.arange(30)).p_less(1.0) < 0.05 for _ in range(1000))
    assert passed < 80


def test_one_cluster_is_no_sample() -> None:
    with pytest.raises(InvalidMeasurement, match="one cluster"):
        clustered_contrast(np.arange(6.0), np.arange(6) < 3, np.array([0, 0, 0, 1, 2, 3]))
