"""KL divergence: golden values, and both paths through a real worker."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awqbench.backends.base import Scored, TopK
from awqbench.errors import InvalidMeasurement, NotApplicable
from awqbench.spec import parse_spec
from awqbench.suites import divergence
from awqbench.suites.base import Context, measure
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


def top(table: np.ndarray, k: int) -> TopK:
    ids = np.argsort(-table, axis=1, kind="stable")[:, :k].astype(np.int32)
    return TopK(ids, np.take_along_axis(table, ids.astype(np.int64), axis=1))


@given(LOGITS, LOGITS, st.integers(1, 7))
def test_the_top_tokens_alone_never_prove_more_than_there_is(a: np.ndarray, b: np.ndarray, k: int) -> None:
    reference, candidate = log_softmax(a), log_softmax(b)
    exact, bound = (
        divergence.divergences(reference, candidate),
        divergence.bounded_divergences(reference, top(candidate, k)),
    )
    # Twelve digits are lost where float32 leaves of one what the tokens that are told do not sum to.
    assert (bound.kl <= exact.kl + 1e-5).all()
    assert bound.top == k
    assert ((bound.outside >= 0) & (bound.outside <= 1)).all()
    ties = (candidate == candidate.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert (bound.disagreement == exact.disagreement)[~ties].all()


def test_the_bound_is_reached_where_the_rest_has_the_references_shape() -> None:
    reference = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    candidate = np.log(np.array([[0.55, 0.15, 0.2, 0.1]], np.float32))
    told = TopK(np.array([[0, 1]], np.int32), candidate[:, :2])
    bound = divergence.bounded_divergences(reference, told)
    assert bound.kl[0] == pytest.approx(divergence.divergences(reference, candidate).kl[0], abs=1e-6)
    assert bound.outside[0] == pytest.approx(0.3, abs=1e-6)
    assert list(bound.by_name()) == ["kl-top2-lower-bound", "top1-disagreement"]


def test_nan_from_the_top_is_refused() -> None:
    with pytest.raises(InvalidMeasurement, match="not a number"):
        divergence.bounded_divergences(
            np.zeros((1, 3), np.float32), TopK(np.zeros((1, 1), np.int32), np.full((1, 1), np.nan, np.float32))
        )


class TopEngine:
    """The tiny model's worker, which tells no more than its top k on one path."""

    def __init__(self, worker: Worker, capabilities: set[str], path: str = "prefill", k: int = 5) -> None:
        self.worker, self.capabilities = worker, capabilities
        self.description = {**worker.description, "topk": k, "topk_path": path, "capabilities": sorted(capabilities)}

    def offers(self, capability: str) -> bool:
        return capability in self.capabilities

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        for chunk in self.worker.logprobs(ids, start, "prefill"):
            yield top(chunk, k)

    def score(self, sequences: list[list[int]], starts: list[int], progress: Any = None) -> list[Scored]:
        return self.worker.score(sequences, starts, progress)

    def tokenize(self, texts: list[str], *, special: bool) -> list[list[int]]:
        return self.worker.tokenize(texts, special=special)


@pytest.fixture(scope="module")
def recorded(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Path]]:
    """A live worker, and a folder with the reference's log-probabilities of `SPEC`'s stretches."""
    scratch = tmp_path_factory.mktemp("scratch")
    options = {"weights": str(tiny_llama), "dtype": "float32", "device": "cpu", "threads": 1}
    with Worker("reference", options, scratch / "log.txt") as worker:
        divergence.record_reference(Context(SPEC, SPEC.parity, worker, tiny_llama), scratch)
        yield worker, scratch


STRETCH = {"text": "pydoc-topics", "window": 48, "windows": 2, "decode_window": 8, "decode_windows": 1}
SPEC = parse_spec({"suites": {"divergence": STRETCH}, "parity": STRETCH})


def measured(recorded: tuple[Worker, Path], folder: Path, suite: Any, *capabilities: str, path: str = "prefill") -> Any:
    worker, scratch = recorded
    engine: Any = TopEngine(worker, set(capabilities), path)
    return measure(Context(SPEC, suite, engine, folder, scratch=scratch))


def test_an_engine_that_tells_its_top_k_yields_a_bound_under_its_own_name(
    recorded: tuple[Worker, Path], tiny_llama: Path
) -> None:
    found = measured(recorded, tiny_llama, SPEC.suites["divergence"], "topk-logprobs")
    ids = {metric.id: metric for metric in found.metrics}
    assert set(ids) == {
        "divergence/pydoc-topics@48+2/prefill/kl-top5-lower-bound",
        "divergence/pydoc-topics@48+2/prefill/top1-disagreement",
    }
    bound = ids["divergence/pydoc-topics@48+2/prefill/kl-top5-lower-bound"]
    assert bound.value == pytest.approx(0, abs=1e-5)
    assert "lower bound" in bound.protocol
    assert 0 < bound.detail["reference_mass_outside"] < 1
    assert found.notes == ["the decode path was not measured: no log-probabilities on it"]


def test_a_suite_that_an_engine_cannot_serve_is_not_applicable(recorded: tuple[Worker, Path], tiny_llama: Path) -> None:
    with pytest.raises(NotApplicable, match="divergence suite needs logprobs; this engine offers generate"):
        measured(recorded, tiny_llama, SPEC.suites["divergence"], "generate")


def test_parity_by_scores_alone(recorded: tuple[Worker, Path], tiny_llama: Path) -> None:
    found = measured(recorded, tiny_llama, SPEC.parity, "score")
    values = {metric.id: metric.value for metric in found.metrics}
    assert values == {
        "parity/pydoc-topics@48+2/prefill/logprob-error": pytest.approx(0, abs=1e-5),
        "parity/pydoc-topics@48+2/prefill/top1-disagreement": 0.0,
    }
    assert "tokenizer" in found.notes[0]


def test_parity_asks_the_engines_tokenizer(recorded: tuple[Worker, Path], tiny_llama: Path) -> None:
    found = measured(recorded, tiny_llama, SPEC.parity, "topk-logprobs", "tokenize", path="decode")
    values = {metric.id: metric.value for metric in found.metrics}
    assert values["parity/same-tokens"] == values["parity/same-bos"] == 1.0
    assert values["parity/pydoc-topics@8+1/decode/kl-top5-lower-bound"] == pytest.approx(0, abs=1e-5)


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
