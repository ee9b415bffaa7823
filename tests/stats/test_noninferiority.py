"""Three verdicts, and none of them bought with too few items."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.stats import noninferiority


def test_three_verdicts() -> None:
    loss = np.random.default_rng(0).normal(0.02, 0.1, 400)
    assert noninferiority(loss, 0.05).verdict == "pass"
    assert noninferiority(loss, 0.001).verdict == "fail"
    open_question = noninferiority(loss, 0.022)
    assert open_question.verdict == "inconclusive"
    assert open_question.n_needed is not None
    assert open_question.n_needed > 400
    assert noninferiority(loss, 0.05).n_needed is None


def test_thirty_identical_answers_prove_no_small_margin() -> None:
    result = noninferiority([0] * 30, 0.001)
    assert (result.verdict, result.estimate) == ("inconclusive", 0)
    assert 0.09 < result.upper < 0.13
    assert result.n_needed is not None
    assert noninferiority([0] * result.n_needed, 0.001).verdict == "pass"
    assert noninferiority([0] * 30, 0.0).n_needed is None


def test_identical_real_numbers_are_the_same_model() -> None:
    assert noninferiority(np.zeros(4), 0.0, binary=False).verdict == "pass"
    assert noninferiority(np.full(4, 0.1), 0.0, binary=False).verdict == "fail"


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_verdict_bounds_and_p_agree(seed: int, margin: float, binary: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 80))
    loss = rng.choice([1.0, -1.0, 0.0], p=[0.2, 0.1, 0.7], size=n) if binary else rng.normal(0.3, 0.5, n)
    result = noninferiority(loss, margin, binary=binary)
    assume(abs(result.upper - margin) > 1e-9 and abs(result.lower - margin) > 1e-9)
    assert (result.verdict == "pass") == (result.upper < margin) == (result.p_noninferior < 0.05)
    assert (result.verdict == "fail") == (result.lower > margin) == (result.p_worse < 0.05)
    assert result.n_needed is None or result.n_needed > n


@given(st.integers(0, 2**32 - 1))
def test_a_larger_margin_is_never_harder(seed: int) -> None:
    loss = np.random.default_rng(seed).normal(0.1, 0.4, 30)
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    verdicts = [order[noninferiority(loss, margin).verdict] for margin in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert verdicts == sorted(verdicts)


def test_the_planned_number_decides() -> None:
    rng = np.random.default_rng(1)
    draw = lambda n: rng.choice([1, -1, 0], p=[0.03, 0.03, 0.94], size=n)  # noqa: E731
    needed = noninferiority(np.r_[np.repeat([1, -1], 6), np.zeros(188)], 0.02).n_needed
    assert needed is not None
    passed = sum(noninferiority(draw(needed), 0.02).verdict == "pass" for _ in range(200))
    assert passed / 200 > 0.7


def test_the_bootstrap_agrees_and_repeats() -> None:
    loss = np.random.default_rng(0).exponential(0.1, 120)
    clusters = [f"c{i // 4}" for i in range(120)]
    analytic = noninferiority(loss, 0.1, clusters=clusters)
    drawn = noninferiority(loss, 0.1, clusters=clusters, seed=7, method="bootstrap")
    assert drawn == noninferiority(loss, 0.1, clusters=clusters, seed=7, method="bootstrap")
    assert drawn.upper == pytest.approx(analytic.upper, rel=0.05)
    assert drawn.clusters == 30


@pytest.mark.parametrize(
    ("loss", "clusters", "error"),
    [
        ([0.1], None, InvalidMeasurement),
        ([0.1, float("nan")], None, InvalidMeasurement),
        ([0.1, float("inf")], None, InvalidMeasurement),
        ([0.1, 0.2], ["a", "a"], InvalidMeasurement),
        ([0.1, 0.2], ["a", None], InvalidMeasurement),
        ([0.1, 0.2], ["a"], UserError),
        ([[0.1, 0.2]], None, UserError),
    ],
)
def test_what_cannot_be_tested_is_refused(loss: object, clusters: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        noninferiority(loss, 0.1, clusters=clusters)


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match="margin"):
        noninferiority([0, 1], -0.1)
    with pytest.raises(UserError, match="alpha"):
        noninferiority([0, 1], 0.1, alpha=0)
