"""Adjusted p-values against hand-computed ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from awqbench.errors import InvalidMeasurement
from awqbench.stats import benjamini_hochberg, holm


def test_hand_computed() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=8)  # each call of statsmodels collects garbage first
def test_both_are_those_of_statsmodels(p: list[float]) -> None:
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_stricter_and_both_only_raise(p: list[float]) -> None:
    family, rate = holm(p), benjamini_hochberg(p)
    assert (family >= rate - 1e-12).all()
    assert (rate >= np.array(p) - 1e-12).all()
    assert (family <= 1).all()


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(InvalidMeasurement):
        holm([0.1, float("nan")])
