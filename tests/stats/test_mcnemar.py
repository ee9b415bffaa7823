"""McNemar's test against hand-computed values and its symmetries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as theirs

from awqbench.errors import UserError
from awqbench.stats import mcnemar

counts = st.integers(0, 200)


def test_hand_computed() -> None:
    # 2 * (C(10,0) + C(10,1)) / 2^10 = 22 / 1024; mid-p takes away C(10,1) / 2^10
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(1, 9, midp=True) == pytest.approx(12 / 1024)
    # (|1 - 9| - 1)^2 / 10 = 4.9
    assert mcnemar(1, 9, exact=False) == pytest.approx(stats.chi2.sf(4.9, 1))
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 1) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 64)


@given(counts, counts)
def test_symmetric_and_ordered(b: int, c: int) -> None:
    assert mcnemar(b, c) == mcnemar(c, b)
    assert 0 < mcnemar(b, c, midp=True) <= mcnemar(b, c) <= 1
    assert mcnemar(b, b) == mcnemar(b, b, midp=True) == 1


@given(counts, counts)
def test_both_are_those_of_statsmodels(b: int, c: int) -> None:
    table = [[5, b], [c, 5]]
    assert mcnemar(b, c) == pytest.approx(theirs(table, exact=True).pvalue)
    if b != c:  # theirs corrects a difference of 0 to -1
        assert mcnemar(b, c, exact=False) == pytest.approx(theirs(table, exact=False, correction=True).pvalue)


@given(st.integers(1, 60))
def test_more_lost_of_as_many_changed_is_stronger_evidence(changed: int) -> None:
    for options in ({}, {"midp": True}, {"exact": False}):
        p = [mcnemar(b, changed - b, **options) for b in range((changed + 1) // 2, changed + 1)]
        assert p == sorted(p, reverse=True)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(UserError, match="-1"):
        mcnemar(-1, 3)
