from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.attribution.recovery import Sample, rank_correlation, worst_group
from awqbench.errors import InvalidMeasurement

WINDOWS = Sample.of(list("abcd"), [True] * 4, distance=True)


def test_worked_by_hand() -> None:
    """Means 5 and 2: three fifths are gone. The residuals (gone - 0.6 before) / 5 are 0.12, -0.08, -0.08 and 0.04."""
    before, after = np.array([4.0, 6.0, 6.0, 4.0]), np.array([1.0, 2.8, 2.8, 1.4])
    found = WINDOWS.recovery(before, after)
    assert found.value == pytest.approx(3.0)
    assert found.share == pytest.approx(0.6)
    assert found.share_low is not None
    assert found.share_high is not None
    # Standard error sqrt(0.0288 / 3 / 4), times Student's 3.182 at 3 degrees of freedom; wider for skew at most.
    assert 0.6 - found.share_low >= 3.18 * np.sqrt(0.0288 / 12) * 0.99
    assert found.share_low < 0.6 < found.share_high


def test_nothing_and_all() -> None:
    before = np.array([4.0, 6.0, 6.0, 4.0])
    all_back, nothing = WINDOWS.recovery(before, np.zeros(4)), WINDOWS.recovery(before, before)
    assert (all_back.share, all_back.share_low, all_back.share_high) == pytest.approx((1, 1, 1))
    assert (nothing.share, nothing.share_low, nothing.share_high) == pytest.approx((0, 0, 0))


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=8), st.floats(0.01, 100))
def test_a_share_has_no_unit(values: list[float], factor: float) -> None:
    before, after = np.array(values[:4]), np.array(values[4:])
    one, other = WINDOWS.recovery(before, after), WINDOWS.recovery(factor * before, factor * after)
    assert (one.share, one.share_low, one.share_high) == pytest.approx((other.share, other.share_low, other.share_high))


def test_of_a_group_the_difference_counts() -> None:
    """Group: 3 becomes 1; the others: 1 and 1. The harm beyond the others' is 2, then 0: all is gone."""
    sample = Sample.of(list("aabbccdd"), [True, False] * 4)
    before, after = np.array([3.0, 1.1, 3.1, 1.0, 3.0, 0.9, 2.9, 1.0]), np.ones(8)
    assert sample.amount(before).value == pytest.approx(2)
    assert sample.recovery(before, after).share == pytest.approx(1)


def test_no_share_of_damage_that_is_not_shown() -> None:
    noise = np.array([1.0, -1.0, 2.0, -2.0])
    assert Sample.of(list("abcd"), [True] * 4).recovery(noise, np.zeros(4)).share is None
    # A KL is damage however wide its interval is.
    assert WINDOWS.recovery(np.array([0.1, 0.1, 0.1, 9.0]), np.zeros(4)).share == pytest.approx(1)


def test_worst_group() -> None:
    values, groups = np.array([1.0, 2.0, 5.0, 0.0, 9.0]), ["x", "x", "y", "y", "z"]
    assert worst_group(values, groups, 2) == "y"
    with pytest.raises(InvalidMeasurement, match="fewer than two groups have 3"):
        worst_group(values, groups, 3)


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
