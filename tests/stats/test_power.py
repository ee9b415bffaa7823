"""Power formulas against the published table, and against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from awqbench.errors import UserError
from awqbench.stats import mde, required_n


@pytest.mark.parametrize(
    ("n", "flips", "points"), [(1000, 0.02, 1.3), (1000, 0.1, 2.8), (1319, 0.15, 3.0), (14042, 0.05, 0.5)]
)
def test_mde_is_2_80_sqrt_flips_over_n(n: int, flips: float, points: float) -> None:
    assert 100 * mde(n, flips=flips) == pytest.approx(points, abs=0.05)


def test_an_effect_flips_as_many_items_as_it_is_large() -> None:
    """2.80 sqrt(0.02 / 200) would be 2.8 points: a loss that 2 % flips cannot make. At d = 2.80 sqrt(d / n), 3.9."""
    assert 100 * mde(200, flips=0.02) == pytest.approx(100 * 2.8016**2 / 200, abs=0.01)
    assert mde(3, flips=0.0) == 1
    assert required_n(0.05, flips=0.0) == required_n(0.05, flips=0.05)


@pytest.mark.parametrize("df", [1, 4, 39])
@pytest.mark.parametrize("sided", ["one", "two"])
def test_few_clusters_have_the_power_of_students_t(df: int, sided: str) -> None:
    theirs = TTestPower().solve_power(
        nobs=df + 1, alpha=0.05, power=0.8, alternative="larger" if sided == "one" else "two-sided"
    )
    assert mde(df + 1, sd=1, df=df, sided=sided) == pytest.approx(theirs, rel=1e-4)


def test_required_n_for_a_margin() -> None:
    assert required_n(0.01, flips=0.05) == 3092
    assert required_n(0.02, flips=0.05) == 773
    assert required_n(0.02, flips=0.1) == 1546


@given(st.floats(0.01, 5), st.floats(0.01, 5), st.sampled_from(["one", "two"]))
def test_required_n_inverts_mde(sd: float, effect: float, sided: str) -> None:
    n = required_n(effect, sd=sd, sided=sided)
    assert mde(n, sd=sd, sided=sided) <= effect * (1 + 1e-9)
    assert n == 2 or mde(n - 1, sd=sd, sided=sided) > effect * (1 - 1e-9)


def test_bad_values_are_named() -> None:
    for call in (
        lambda: mde(10),
        lambda: mde(10, sd=1, flips=0.1),
        lambda: mde(10, flips=1.2),
        lambda: mde(0, sd=1),
        lambda: mde(10, sd=-1),
        lambda: required_n(0, sd=1),
        lambda: mde(10, sd=1, power=1),
        lambda: mde(10, sd=1, df=0),
    ):
        with pytest.raises(UserError):
            call()
