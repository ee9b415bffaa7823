"""Paired differences of two backends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from awqbench.errors import UserError
from awqbench.stats import paired_delta

seeds = st.integers(0, 2**32 - 1)


def test_golden() -> None:
    found = paired_delta([1.0, 2.0, 3.0, 4.0, 5.0], [1.1, 2.3, 3.2, 4.4, 5.5])
    expected = stats.ttest_1samp([0.1, 0.3, 0.2, 0.4, 0.5], 0)
    assert found.estimate == pytest.approx(0.3)
    assert found.se == pytest.approx(np.sqrt(0.025 / 5))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@given(seeds, st.floats(-100, 100))
def test_an_item_that_is_hard_for_both_does_not_count(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    before, change = rng.normal(size=25), rng.normal(0.1, 0.2, 25)
    hard = rng.normal(0, 50, 25) + shift
    plain, harder = paired_delta(before, before + change), paired_delta(before + hard, before + hard + change)
    assert harder.estimate == pytest.approx(plain.estimate)
    assert harder.high == pytest.approx(plain.high)


@given(seeds)
def test_swapping_the_backends_mirrors_the_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(40) < 0.6, rng.random(40) < 0.5
    there, back = paired_delta(a, b), paired_delta(b, a)
    assert (there.low, there.high, there.p) == pytest.approx((-back.high, -back.low, back.p), abs=1e-9)


def test_planted_flips_are_found_at_the_stated_power() -> None:
    """n = 1000 and 5 % flips: 2.0 points are found 80 % of the time, and no difference 5 % of the time."""
    rng = np.random.default_rng(0)
    reference = np.ones(1000)
    for loss, low, high in ((0.0198, 0.70, 0.88), (0.0, 0.0, 0.085)):
        p = [0.025 + loss / 2, 0.025 - loss / 2, 0.95]
        found = [paired_delta(reference, 1 - rng.choice([1, -1, 0], p=p, size=1000)).p < 0.05 for _ in range(250)]
        assert low < np.mean(found) < high


def test_clusters_widen_the_interval_and_the_bootstrap_agrees() -> None:
    rng = np.random.default_rng(0)
    clusters = [f"passage {i // 5}" for i in range(200)]
    change = np.repeat(rng.normal(0, 1, 40), 5) + rng.normal(0, 0.3, 200)
    naive, robust = paired_delta(np.zeros(200), change), paired_delta(np.zeros(200), change, clusters)
    drawn = paired_delta(np.zeros(200), change, clusters, method="bootstrap")
    assert robust.clusters == 40
    assert robust.se > 1.8 * naive.se
    assert (drawn.low, drawn.high) == pytest.approx((robust.low, robust.high), abs=0.05)


def test_arrays_of_different_lengths_are_not_paired() -> None:
    with pytest.raises(UserError, match="3 items and candidate 2"):
        paired_delta([1, 2, 3], [1, 2])
