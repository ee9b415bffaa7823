"""Consecutive windows of one text: neighbours as one cluster."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.stats.batches import batches
from awqbench.stats.clustered import clustered_mean


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [1]),
        (2, [1, 1]),
        (4, [1, 1, 1, 1]),
        (8, [2, 2, 2, 2]),
        (16, [4] * 4),
        (32, [7, 7, 6, 6, 6]),
        (64, [10] + [9] * 6),
    ],
)
def test_golden_batches(n: int, sizes: list[int]) -> None:
    assert np.bincount(batches(n)).tolist() == sizes


@given(st.integers(1, 3000))
def test_batches_are_runs_of_about_equal_sizes(n: int) -> None:
    codes = batches(n)
    assert codes.size == n
    assert set(np.diff(codes)) <= {0, 1}
    assert np.ptp(np.bincount(codes)) <= 1
    assert codes.max() + 1 >= min(n, 4)


def test_the_interval_is_students_t_of_the_batches_means() -> None:
    values = np.repeat([1.0, 2.0, 6.0, 3.0], 4) + np.tile([-0.1, 0.1], 8)
    found = clustered_mean(values, batches(16))
    assert (found.estimate, found.se, found.df) == pytest.approx((3, np.std([1, 2, 6, 3], ddof=1) / 2, 3))


@pytest.mark.parametrize(("n", "rho", "most"), [(16, 0.3, 0.09), (64, 0.3, 0.08), (64, 0.5, 0.09)])
def test_windows_that_hang_together(designs: ModuleType, n: int, rho: float, most: float) -> None:
    """A margin at the truth is passed about as often as it says; far too often where windows count as independent."""
    rows = designs.autoregressive(np.random.default_rng(0), 1000, n, rho)
    assert np.corrcoef(rows[:, 0], rows[:, 1])[0, 1] == pytest.approx(rho, abs=0.1)
    honest, naive = (
        np.mean([clustered_mean(row, codes).p_less(0) < 0.05 for row in rows]) for codes in (batches(n), np.arange(n))
    )
    assert honest < most < naive
