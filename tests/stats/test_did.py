"""Difference-in-differences by group."""

import numpy as np
import pytest
from scipy import stats

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.stats import difference_in_differences
from awqbench.stats.did import contrast_bounds


def test_golden() -> None:
    delta = np.array([-0.5, -0.3, -0.4, 0.1, 0.0, -0.1, 0.2])
    found = difference_in_differences(delta, np.arange(7) < 3)
    welch = stats.ttest_ind(delta[:3], delta[3:], equal_var=False)
    assert found.estimate == pytest.approx(-0.4 - 0.05)
    assert (found.group_delta, found.rest_delta) == pytest.approx((-0.4, 0.05))
    assert found.estimate / found.se == pytest.approx(welch.statistic)
    assert (found.n_group, found.n_rest, found.clusters) == (3, 4, 7)
    assert found.low < found.estimate < found.high


def test_groups_without_a_flip_keep_an_interval() -> None:
    found = difference_in_differences(np.zeros(60), np.arange(60) < 30)
    assert found.estimate == 0
    assert found.high > 0.1
    assert found.p == 1
    assert difference_in_differences(np.zeros(60), np.arange(60) < 30, binary=False).high == 0


def test_flips_are_adjusted_by_one_item_of_each_sign_whatever_the_clusters() -> None:
    """Bonett & Price add an item, not a cluster: no flip among 200 of 400 bounds the difference at a few per cent."""
    member = np.arange(400) % 2 == 0
    alone, clustered = (contrast_bounds(np.zeros(400), member, c, binary=True) for c in _codes(400))
    assert clustered.se == pytest.approx(alone.se, rel=0.01)
    # two items of squared deviation 1 on each side: se^2 is about 2 * 2 / 202^2
    assert alone.se == pytest.approx(2 / 202, rel=0.01)


def _codes(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n), np.arange(n) // 20


def test_a_planted_harm_is_found() -> None:
    rng = np.random.default_rng(2)
    member = np.arange(600) % 4 == 0
    found = 0
    for _ in range(100):
        delta = np.where(
            member & (rng.random(600) < 0.2), -1.0, rng.choice([1.0, -1.0, 0.0], p=[0.03, 0.03, 0.94], size=600)
        )
        result = difference_in_differences(delta, member)
        found += result.p < 0.05 and result.high < 0
    assert found > 95


def test_one_item_or_one_cluster_is_no_group() -> None:
    with pytest.raises(InvalidMeasurement, match="the group has 1"):
        difference_in_differences([0.1, 0.2, 0.3], [True, False, False])
    with pytest.raises(InvalidMeasurement, match="one cluster"):
        difference_in_differences([0.1, 0.2, 0.3, 0.4], [True, True, False, False], clusters=["a", "a", "b", "c"])
    with pytest.raises(UserError, match="booleans"):
        difference_in_differences([0.1, 0.2, 0.3], [1, 0, 0])
