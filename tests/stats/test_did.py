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


@pytest.mark.parametrize("crossed", [True, False], ids=["templates span groups", "templates within groups"])
def test_false_alarms(crossed: bool) -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(80), 4)
    member = np.tile(np.arange(4), 80) == 0 if crossed else codes < 20
    alarms = 0
    for _ in range(1000):
        shared, own = (rng.choice([1.0, -1.0, 0.0], p=[0.1, 0.05, 0.85], size=size) for size in (80, 320))
        delta = np.where(rng.random(320) < 0.6, shared[codes], own)
        bounds = contrast_bounds(delta, member, codes, binary=True)
        alarms += min(bounds.p_greater(0), bounds.p_less(0)) < 0.025
    assert alarms <= stats.binom.isf(1e-4, 1000, 0.05)


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
