"""Divergences of two distributions: golden values worked out by hand, and what must hold of any two."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awqbench.backends.base import TopK
from awqbench.errors import InvalidMeasurement
from awqbench.suites.distances import bounded_divergences, divergences, likeliest, top_disagreements

LOGITS = hnp.arrays(np.float32, (3, 7), elements=st.floats(-30, 30, width=32))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return (wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)).astype(np.float32)


def logs(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities], np.float32))


def top(table: np.ndarray, k: int) -> TopK:
    ids = np.argsort(-table, axis=1, kind="stable")[:, :k].astype(np.int32)
    return TopK(ids, np.take_along_axis(table, ids.astype(np.int64), axis=1))


def test_golden() -> None:
    found = divergences(logs(0.5, 0.5), logs(0.75, 0.25), np.array([1]))
    values = {name: value[0] for name, value in found.values.items()}
    assert values == {
        "kl": pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-6),
        "kl-reverse": pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5), rel=1e-6),
        "total-variation": pytest.approx(0.25),
        "top1-disagreement": 0.0,
        # The text's token had 0.5 and has 0.25: one bit worse.
        "log-ppl-ratio": pytest.approx(math.log(2)),
    }
    assert found.confidence.tolist() == [pytest.approx(0.5)]


@given(LOGITS)
def test_a_distribution_does_not_diverge_from_itself(logits: np.ndarray) -> None:
    table = log_softmax(logits)
    found = divergences(table, table, np.array([0, 3, 6]))
    assert {name: set(values) for name, values in found.values.items()} == {name: {0.0} for name in found.values}
    assert "top5-disagreement" in found.values  # ten of seven are none


@given(LOGITS, LOGITS)
def test_both_directions_are_never_negative_and_swap(a: np.ndarray, b: np.ndarray) -> None:
    one, other = log_softmax(a), log_softmax(b)
    found, swapped = divergences(one, other).values, divergences(other, one).values
    assert (found["kl"] >= 0).all()
    np.testing.assert_allclose(found["kl"], swapped["kl-reverse"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["total-variation"], swapped["total-variation"], atol=1e-7)
    # Pinsker's inequality, to rounding.
    assert (found["total-variation"] ** 2 <= found["kl"] / 2 + 1e-6).all()


@given(LOGITS, LOGITS)
def test_against_the_definition_in_float64(a: np.ndarray, b: np.ndarray) -> None:
    one, other = log_softmax(a), log_softmax(b)
    p, q = one.astype(np.float64), other.astype(np.float64)
    exact = (np.exp(p) * (p - q)).sum(axis=1)
    np.testing.assert_allclose(divergences(one, other).values["kl"], exact, rtol=1e-5, atol=1e-6)


def test_rounded_masses_leave_no_floor() -> None:
    # Two tables that differ by their normalizer alone, by 1e-5: the plain sum would show a divergence of 1e-5.
    table = log_softmax(np.random.default_rng(0).normal(0, 3, (2, 4096)).astype(np.float32))
    found = divergences(table, table - np.float32(1e-5)).values
    assert found["kl"].max() < 1e-7
    assert found["kl-reverse"].max() < 1e-7


def test_zero_probability_is_a_limit_not_a_nan() -> None:
    certain = np.array([[0.0, -np.inf]], np.float32)
    found = divergences(certain, logs(0.5, 0.5)).values
    assert found["kl"][0] == pytest.approx(math.log(2))
    assert found["kl-reverse"][0] == math.inf
    assert divergences(certain, certain).values["kl"].tolist() == [0.0]


def test_nan_is_refused() -> None:
    table = np.full((1, 3), np.nan, np.float32)
    with pytest.raises(InvalidMeasurement, match="not a number"):
        divergences(table, table)


def test_sets_of_the_likeliest_are_compared_as_sets() -> None:
    # AutoAWQ indexes one element of the top five, the arg-max: all of its agreements equal top-1.
    reference = np.log(np.arange(12, 0, -1, dtype=np.float32) / 78)[None]
    candidate = reference[:, [4, 1, 2, 3, 0, 7, 6, 5, 8, 9, 10, 11]]
    found = divergences(reference, candidate).values
    assert found["top1-disagreement"].tolist() == [1.0]
    assert found["top5-disagreement"].tolist() == found["top10-disagreement"].tolist() == [0.0]
    swapped = divergences(reference, reference[:, [11, 1, 2, 3, 4, 10, 6, 7, 8, 9, 5, 0]]).values
    # The first and the sixth leave the ten likeliest, the first the five likeliest too.
    assert swapped["top5-disagreement"].tolist() == [pytest.approx(1 / 5)]
    assert swapped["top10-disagreement"].tolist() == [pytest.approx(2 / 10)]


@given(LOGITS, st.integers(1, 7))
def test_likeliest_are_the_largest_in_order(logits: np.ndarray, k: int) -> None:
    taken = np.take_along_axis(logits, likeliest(logits, k), axis=1)
    assert (taken == -np.sort(-logits, axis=1)[:, :k]).all()


def test_no_overlap_is_full_disagreement() -> None:
    found = top_disagreements(np.array([[1, 2, 3]]), np.array([[3, 4, 5]]), [1, 2, 3])
    assert [float(values[0]) for values in found.values()] == [1.0, 1.0, pytest.approx(2 / 3)]


@given(LOGITS, LOGITS, st.integers(1, 7))
def test_the_top_tokens_alone_never_prove_more_than_there_is(a: np.ndarray, b: np.ndarray, k: int) -> None:
    reference, candidate = log_softmax(a), log_softmax(b)
    exact, bound = divergences(reference, candidate), bounded_divergences(reference, top(candidate, k))
    # Twelve digits are lost where float32 leaves of one what the tokens that are told do not sum to.
    assert (bound.values[f"kl-top{k}-lower-bound"] <= exact.values["kl"] + 1e-5).all()
    assert bound.top == k
    assert ((bound.outside >= 0) & (bound.outside <= 1)).all()
    ties = (candidate == candidate.max(axis=1, keepdims=True)).sum(axis=1) > 1
    same = bound.values["top1-disagreement"] == exact.values["top1-disagreement"]
    assert same[~ties].all()


def test_the_bound_is_reached_where_the_rest_has_the_references_shape() -> None:
    reference, candidate = logs(0.4, 0.3, 0.2, 0.1), logs(0.55, 0.15, 0.2, 0.1)
    bound = bounded_divergences(reference, TopK(np.array([[0, 1]], np.int32), candidate[:, :2]))
    exact = divergences(reference, candidate).values["kl"][0]
    assert list(bound.values) == ["kl-top2-lower-bound", "top1-disagreement"]
    assert bound.values["kl-top2-lower-bound"][0] == pytest.approx(exact, abs=5e-6)
    assert bound.outside[0] == pytest.approx(0.3, abs=1e-6)


def test_nan_from_the_top_is_refused() -> None:
    with pytest.raises(InvalidMeasurement, match="not a number"):
        bounded_divergences(
            np.zeros((1, 3), np.float32), TopK(np.zeros((1, 1), np.int32), np.full((1, 1), np.nan, np.float32))
        )
