"""KL divergence: golden values, and both paths through a real worker."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awqbench.errors import InvalidMeasurement
from awqbench.spec import parse_spec
from awqbench.suites import divergence
from awqbench.suites.base import Context
from awqbench.worker.client import Worker

LOGITS = hnp.arrays(np.float32, (3, 7), elements=st.floats(-30, 30, width=32))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return (wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)).astype(np.float32)


def test_golden() -> None:
    p, q = np.log(np.array([[0.5, 0.5]], np.float32)), np.log(np.array([[0.75, 0.25]], np.float32))
    found = divergence.divergences(p, q)
    assert found.kl[0] == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-6)
    assert found.kl_reverse[0] == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5), rel=1e-6)


@given(LOGITS)
def test_a_distribution_does_not_diverge_from_itself(logits: np.ndarray) -> None:
    table = log_softmax(logits)
    found = divergence.divergences(table, table)
    assert found.kl.tolist() == found.kl_reverse.tolist() == found.disagreement.tolist() == [0, 0, 0]


@given(LOGITS, LOGITS)
def test_both_directions_are_never_negative_and_swap(a: np.ndarray, b: np.ndarray) -> None:
    one, other = log_softmax(a), log_softmax(b)
    found, swapped = divergence.divergences(one, other), divergence.divergences(other, one)
    assert (found.kl >= 0).all()
    np.testing.assert_allclose(found.kl, swapped.kl_reverse, atol=1e-9)


def test_zero_probability_is_a_limit_not_a_nan() -> None:
    certain = np.array([[0.0, -np.inf]], np.float32)
    even = np.log(np.array([[0.5, 0.5]], np.float32))
    found = divergence.divergences(certain, even)
    assert found.kl[0] == pytest.approx(math.log(2))
    assert found.kl_reverse[0] == math.inf


def test_nan_is_refused() -> None:
    table = np.full((1, 3), np.nan, np.float32)
    with pytest.raises(InvalidMeasurement, match="not a number"):
        divergence.divergences(table, table)


def test_the_reference_against_its_own_record(tiny_llama: Path, tmp_path: Path) -> None:
    suite = {"text": "pydoc-topics", "window": 160, "windows": 2, "decode_window": 12, "decode_windows": 2}
    spec = parse_spec({"suites": {"divergence": suite}})
    options = {"weights": str(tiny_llama), "dtype": "float32", "device": "cpu", "threads": 1}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Worker("reference", options, tmp_path / "log.txt") as worker:
        context = Context(spec, spec.suites["divergence"], worker, tiny_llama, scratch=scratch)
        divergence.record_reference(context, scratch)
        measured = divergence.measure(context)
    values = {metric.id: metric.value for metric in measured.metrics}
    assert set(values) == {
        f"divergence/pydoc-topics@{size}+2/{path}/{what}"
        for size, path in ((160, "prefill"), (12, "decode"))
        for what in ("kl", "kl-reverse", "top1-disagreement")
    }
    assert set(values.values()) == {0.0}
    assert len(measured.items) == 12
    # The decode path sees the same words as the prefill path, so its record is the prefill's, to rounding.
    prefill = np.fromfile(scratch / "prefill-00000.f32", np.float32).reshape(159, -1)[:11]
    decode = np.fromfile(scratch / "decode-00000.f32", np.float32).reshape(11, -1)
    np.testing.assert_allclose(decode, prefill, atol=5e-5)
