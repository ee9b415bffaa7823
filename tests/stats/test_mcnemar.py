"""McNemar's test against hand-computed values and its symmetries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

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


def test_negative_counts_are_refused() -> None:
    with pytest.raises(UserError, match="-1"):
        mcnemar(-1, 3)
