"""All groups at once, and the worst of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats import difference_in_differences, noninferiority, simultaneous_differences, worst_group
from awqbench.stats.simultaneous import maximum


def test_two_groups_are_one_comparison() -> None:
    delta, groups = np.random.default_rng(0).normal(size=40), np.arange(40) % 2
    both = simultaneous_differences(delta, groups)
    alone = difference_in_differences(delta, groups == 0)
    assert (both["0"].low, both["0"].high) == pytest.approx((alone.low, alone.high), abs=0.02)
    assert both["0"].p == pytest.approx(alone.p, rel=0.05)
    assert both["1"].p == pytest.approx(both["0"].p)
    assert both["1"].low == pytest.approx(-both["0"].high)


def test_independent_statistics_are_corrected_as_sidak_says() -> None:
    apart = maximum(np.eye(10), 40_000, 0, sides=2)
    assert apart.alpha(0.05) == pytest.approx(1 - 0.95**0.1, rel=0.05)
    assert apart.adjusted(0.01) == pytest.approx(1 - 0.99**10, rel=0.05)
    same = maximum(np.ones((3, 10)), 40_000, 0, sides=1)
    assert same.alpha(0.05) == pytest.approx(0.05, rel=0.05)
    assert maximum(np.zeros((3, 2)), 999, 0, sides=1).alpha(0.05) < 0.05  # no spread shows no correlation


@given(st.integers(0, 999), st.integers(2, 6))
@settings(max_examples=20)
def test_a_correction_only_widens_and_never_more_than_bonferronis(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    delta, groups, clusters = rng.normal(size=60), np.arange(60) % k, np.arange(60) // 5
    for name, found in simultaneous_differences(delta, groups, clusters, seed=seed).items():
        alone = difference_in_differences(delta, groups == int(name), clusters)
        most = difference_in_differences(delta, groups == int(name), clusters, level=1 - 0.05 / k)
        assert most.low - 0.06 <= found.low <= alone.low  # the joint law is drawn: its quantile errs a little
        assert alone.p <= found.p <= min(1.0, k * alone.p) + 0.01
        assert (found.estimate, found.n_group) == (alone.estimate, alone.n_group)


def test_the_harmed_group_is_named_and_bounded() -> None:
    rng, groups = np.random.default_rng(0), np.repeat(list("abcdefgh"), 30)
    loss = rng.normal(size=240) + 0.8 * (groups == "c")
    harmed = worst_group(loss, groups)
    assert (harmed.group, harmed.groups) == ("c", 8)
    assert harmed.p < 0.01
    assert harmed.lower < harmed.estimate < harmed.upper
    assert harmed == worst_group(loss, groups)
    differences = simultaneous_differences(-loss, groups)
    assert min(differences, key=lambda name: differences[name].p) == "c"
    assert differences["c"].high < 0


def test_the_upper_bound_is_the_largest_of_the_groups_own() -> None:
    loss, groups = np.random.default_rng(1).normal(size=60), np.arange(60) % 3
    bounds = [noninferiority(loss[groups == g], 0.0).upper for g in range(3)]
    assert worst_group(loss, groups).upper == pytest.approx(max(bounds))


def test_groups_without_a_flip_keep_a_bound() -> None:
    found = worst_group(np.zeros(90), np.arange(90) % 3)
    assert found.estimate == 0
    assert found.p > 0.5
    assert found.upper == pytest.approx(noninferiority(np.zeros(30), 0.0).upper)
    assert worst_group(np.zeros(90), np.arange(90) % 3, binary=False).upper == 0


def test_the_worst_of_many_equal_groups_shows_what_the_normal_maximum_does() -> None:
    """40 groups of 25 items: the largest of 40 normal means, 0.2 each, less a trifle for the common mean."""
    found = worst_group(np.random.default_rng(0).normal(size=1000), np.arange(1000) % 40)
    largest = np.mean(stats.norm.rvs(size=(20_000, 40), random_state=1).max(axis=1)) / 5
    assert found.excess_if_equal == pytest.approx(largest, rel=0.06)


def test_groups_that_cannot_be_compared_are_refused() -> None:
    for call in (worst_group, simultaneous_differences):
        for groups in (["a", "a", "a", "a"], ["a", "b", "b", "b"], ["a", "a", "b"], None):
            with pytest.raises(InvalidMeasurement, match="groups are compared"):
                call([1.5, 2, 3, 4], groups)
        with pytest.raises(InvalidMeasurement, match="one cluster"):
            call([1.5, 2, 3, 4], ["a", "a", "b", "b"], ["x", "x", "y", "z"])
