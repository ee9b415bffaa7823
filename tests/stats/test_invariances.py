"""What must not matter does not: the order of items, the names of clusters, the unit and the sign of a loss."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.stats.bootstrap import bootstrap_mean
from awqbench.stats.bounds import Bounds
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.did import contrast_bounds
from awqbench.stats.discordant import discordant_bounds
from awqbench.stats.inputs import Codes, Floats, cluster_codes
from awqbench.stats.medians import log_ratio_bounds

Test = Callable[[Floats, Codes], Bounds]


def _did(values: Floats, codes: Codes) -> Bounds:
    return contrast_bounds(values, values_member(values), codes, binary=False)


def values_member(values: Floats) -> np.ndarray:
    """A group that travels with its items: those whose third digit is even."""
    return (np.floor(np.abs(values) * 1000) % 2) == 0


EXACT: dict[str, Test] = {"mean": clustered_mean, "difference-in-differences": _did}
DRAWN: dict[str, Test] = {"bootstrap": lambda v, c: bootstrap_mean(v, c, draws=1999)}
seeds = st.integers(0, 2**16)
every = pytest.mark.parametrize("test", EXACT.values(), ids=EXACT)


def _items(seed: int) -> tuple[Floats, Codes, np.random.Generator]:
    rng = np.random.default_rng(seed)
    codes = cluster_codes(rng.integers(0, 9, 40), 40)
    return rng.exponential(size=40), codes, rng


def _figures(bounds: Bounds) -> list[float]:
    return [bounds.estimate, bounds.lower(0.05), bounds.upper(0.05), bounds.p_greater(0.3), bounds.p_less(0.3)]


@every
@given(seeds)
@settings(max_examples=15)
def test_the_order_of_items_and_the_names_of_clusters(test: Test, seed: int) -> None:
    values, codes, rng = _items(seed)
    order, names = rng.permutation(40), rng.permutation(9)
    renamed = cluster_codes(names[codes[order]], 40)
    assert _figures(test(values[order], renamed)) == pytest.approx(_figures(test(values, codes)))


@given(seeds, st.floats(-5, 5), st.floats(0.01, 100))
@settings(max_examples=15)
def test_shift_and_unit_of_a_mean(seed: int, shift: float, unit: float) -> None:
    values, codes, _ = _items(seed)
    for test in (clustered_mean, DRAWN["bootstrap"]):
        plain, moved = test(values, codes), test(shift + unit * values, codes)
        for bound in ("lower", "upper"):
            expected = shift + unit * getattr(plain, bound)(0.05)
            assert getattr(moved, bound)(0.05) == pytest.approx(expected, rel=1e-6, abs=1e-6 * unit)


@given(seeds)
@settings(max_examples=15)
def test_a_shift_of_both_groups_and_the_sign(seed: int) -> None:
    values, codes, _ = _items(seed)
    member = values_member(values)
    plain = contrast_bounds(values, member, codes, binary=False)
    both = contrast_bounds(values + 3, member, codes, binary=False)
    assert _figures(both) == pytest.approx(_figures(plain))
    for mirrored in (
        contrast_bounds(-values, member, codes, binary=False),
        contrast_bounds(values, ~member, codes, binary=False),
    ):
        assert (mirrored.lower(0.05), mirrored.upper(0.05)) == pytest.approx((-plain.upper(0.05), -plain.lower(0.05)))


@given(seeds)
@settings(max_examples=15)
def test_the_order_of_flips_and_the_names_of_their_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses, codes = rng.choice([1.0, -1.0, 0.0], p=[0.2, 0.1, 0.7], size=40), cluster_codes(rng.integers(0, 9, 40), 40)
    order = rng.permutation(40)
    renamed = cluster_codes(rng.permutation(9)[codes[order]], 40)
    for binary_test in (discordant_bounds, lambda v, c: contrast_bounds(v, np.arange(40) < 20, c, binary=True)):
        if binary_test is discordant_bounds:
            assert _figures(binary_test(losses[order], renamed)) == pytest.approx(_figures(binary_test(losses, codes)))
        mirrored, plain = binary_test(-losses, codes), binary_test(losses, codes)
        assert mirrored.lower(0.05) == pytest.approx(-plain.upper(0.05), abs=1e-9)


@pytest.mark.parametrize("test", [*EXACT.values(), *DRAWN.values()], ids=[*EXACT, *DRAWN])
@given(seeds)
@settings(max_examples=15)
def test_bounds_and_p_values_are_monotone(test: Test, seed: int) -> None:
    values, codes, _ = _items(seed)
    bounds = test(values, codes)
    alphas, margins = (0.001, 0.01, 0.05, 0.2, 0.4), np.linspace(-1, 3, 15)
    assert [bounds.lower(a) for a in alphas] == sorted(bounds.lower(a) for a in alphas)
    assert [bounds.upper(a) for a in alphas] == sorted((bounds.upper(a) for a in alphas), reverse=True)
    greater = [bounds.p_greater(m) for m in margins]
    assert greater == sorted(greater)
    less = [bounds.p_less(m) for m in margins]
    assert less == sorted(less, reverse=True)


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=10)
def test_the_unit_of_times(seed: int, unit: float) -> None:
    a, b = np.random.default_rng(seed).lognormal(size=(2, 15))
    plain, other = (log_ratio_bounds(u * a, u * b, draws=499) for u in (1.0, unit))
    assert (other.lower(0.05), other.upper(0.05)) == pytest.approx((plain.lower(0.05), plain.upper(0.05)))
