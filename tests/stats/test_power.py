"""Power formulas against the published table, and against each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.stats import mde, noninferiority, required_n


@pytest.mark.parametrize(
    ("n", "flips", "points"), [(200, 0.02, 2.8), (1000, 0.1, 2.8), (1319, 0.15, 3.0), (14042, 0.05, 0.5)]
)
def test_mde_is_2_80_sqrt_flips_over_n(n: int, flips: float, points: float) -> None:
    assert 100 * mde(n, flips=flips) == pytest.approx(points, abs=0.05)


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
    ):
        with pytest.raises(UserError):
            call()


def test_the_promised_power_is_delivered() -> None:
    """A candidate without loss passes a 2-point margin about 80 % of the time at the n the formula asks for."""
    rng = np.random.default_rng(0)
    n = required_n(0.02, flips=0.05)
    draws = rng.choice([1, -1, 0], p=[0.025, 0.025, 0.95], size=(300, n))
    passed = sum(noninferiority(row, 0.02).verdict == "pass" for row in draws)
    assert 0.73 < passed / 300 < 0.86  # +/- 3 standard errors
