"""The score interval of paired right/wrong differences: never of zero width, and of honest size."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from awqbench.stats.discordant import DiscordantBounds, discordant_bounds

tables = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 200)).filter(lambda t: sum(t) > 1)


def test_without_a_flip_the_bound_is_a_corrected_score_bound() -> None:
    # (n x - 1/2)^2 = z^2 n x (1 - x) with n = 30, z = 1.645
    bound = DiscordantBounds(0, 0, 30).upper(0.05)
    z = stats.norm.isf(0.05)
    assert (30 * bound - 0.5) ** 2 == pytest.approx(z**2 * 30 * bound * (1 - bound))
    assert bound > 1 - 0.05 ** (1 / 30)  # at least the exact bound for no events


@given(tables, st.floats(0.002, 0.3))
def test_bounds_bracket_and_invert(table: tuple[int, int, int], alpha: float) -> None:
    plus, minus, same = table
    bounds = DiscordantBounds(plus, minus, plus + minus + same)
    low, high = bounds.lower(alpha), bounds.upper(alpha)
    assert -1 <= low < bounds.estimate + 1e-12
    assert bounds.estimate - 1e-12 < high <= 1
    if low > -1:
        assert bounds.p_greater(low) == pytest.approx(alpha, rel=1e-4)
    if high < 1:
        assert bounds.p_less(high) == pytest.approx(alpha, rel=1e-4)


@given(tables)
def test_swapping_the_sides_mirrors_the_bounds(table: tuple[int, int, int]) -> None:
    plus, minus, same = table
    n = plus + minus + same
    assert DiscordantBounds(plus, minus, n).lower(0.05) == pytest.approx(-DiscordantBounds(minus, plus, n).upper(0.05))


@pytest.mark.parametrize("n", [20, 60, 120])
@pytest.mark.parametrize("loss", [0.02, 0.1])
@pytest.mark.parametrize("other", [0.0, 0.05])
def test_exact_size(n: int, loss: float, other: float) -> None:
    """The chance to pass (to fail) a margin that equals the true loss, summed over all tables: no simulation."""
    passed = failed = 0.0
    for plus in range(n + 1):
        for minus in range(n + 1 - plus if other else 1):
            chance = stats.multinomial.pmf(
                [plus, minus, n - plus - minus], n, [loss + other, other, 1 - loss - 2 * other]
            )
            if chance < 1e-7:
                continue
            bounds = DiscordantBounds(plus, minus, n)
            passed += chance * (bounds.p_less(loss) < 0.05)
            failed += chance * (bounds.p_greater(loss) < 0.05)
    assert passed <= 0.05
    assert failed <= 0.062  # the worst corner of a discrete test


@given(st.lists(st.integers(1, 8), min_size=2, max_size=15), st.integers(0, 999), st.floats(0.01, 0.2))
def test_no_flip_never_bounds_worse_than_one(sizes: list[int], where: int, alpha: float) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    differences = np.zeros(codes.size)
    none = discordant_bounds(differences, codes)
    differences[where % codes.size] = 1
    one = discordant_bounds(differences, codes)
    assert none.upper(alpha) <= one.upper(alpha) + 1e-9
    assert none.upper(alpha) - none.lower(alpha) <= one.upper(alpha) - one.lower(alpha) + 1e-9


def test_items_of_a_cluster_that_always_agree_count_as_clusters() -> None:
    codes = np.repeat(np.arange(10), 5)
    bounds = discordant_bounds(np.zeros(50), codes)
    assert bounds.n == 50  # without a flip nothing shows how items of a cluster hang together
    assert bounds.df == pytest.approx(9)
    whole = discordant_bounds((codes < 2).astype(float), codes)
    assert whole.n == pytest.approx(9, abs=1)  # items of a cluster always agree: about ten effective items
    alone = discordant_bounds((codes < 2).astype(float), np.arange(50))
    assert alone.n == 50
    assert math.isinf(alone.df)
