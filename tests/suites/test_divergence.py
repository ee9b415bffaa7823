"""The divergence and parity suites: both paths through a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.base import Scored, TopK
from awqbench.errors import NotApplicable
from awqbench.spec import parse_spec
from awqbench.suites import divergence
from awqbench.suites.base import Context, measure
from awqbench.suites.distances import likeliest
from awqbench.worker.client import Worker


class TopEngine:
    """The tiny model's worker, which tells no more than its top k on one path."""

    def __init__(self, worker: Worker, capabilities: set[str], path: str = "prefill", k: int = 5) -> None:
        self.worker, self.capabilities = worker, capabilities
        self.description = {**worker.description, "topk": k, "topk_path": path, "capabilities": sorted(capabilities)}

    def offers(self, capability: str) -> bool:
        return capability in self.capabilities

    def logprobs(self, ids: list[int], start: int, path: Any) -> Iterator[Any]:
        return self.worker.logprobs(ids, start, path)

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        for chunk in self.worker.logprobs(ids, start, "prefill"):
            best = likeliest(chunk, k)
            yield TopK(best.astype(np.int32), np.take_along_axis(chunk, best, axis=1))

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
    # Disagreement among the ten likeliest is not known of five, and a bound is not divided into bands.
    assert set(ids) == {
        f"divergence/pydoc-topics@48+2/prefill/{what}"
        for what in (
            "kl-top5-lower-bound", "top1-disagreement", "top5-disagreement", "top1-disagreement-by-position",
            "top1-disagreement-by-frequency", "top1-disagreement-by-confidence",
        )
    }  # fmt: skip
    bound = ids["divergence/pydoc-topics@48+2/prefill/kl-top5-lower-bound"]
    assert bound.value == pytest.approx(0, abs=1e-5)
    assert "lower bound" in bound.protocol
    assert 0 < bound.detail["reference_mass_outside"] < 1
    assert found.unmeasured.keys() == {
        f"divergence/pydoc-topics@8+1/decode/{identity.rpartition('/')[2]}" for identity in ids
    }


def test_a_path_that_an_engine_cannot_tell_is_unmeasured(recorded: tuple[Worker, Path], tiny_llama: Path) -> None:
    """vLLM's: a limit on `divergence/*/kl`, also while decoding, was judged on whole windows alone and passed."""
    found = measured(recorded, tiny_llama, SPEC.suites["divergence"], "logprobs")
    assert {metric.id.split("/")[-2] for metric in found.metrics} == {"prefill"}
    why = found.unmeasured["divergence/pydoc-topics@8+1/decode/kl"]
    assert why == "the decode path was not measured: no log-probabilities on it"


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
    plain = ["kl", "kl-reverse", "total-variation", *(f"top{k}-disagreement" for k in (1, 5, 10)), "log-ppl-ratio"]
    banded = [f"{what}-by-{by}" for by in ("position", "frequency", "confidence") for what in ("kl", "log-ppl-ratio")]
    assert list(values) == [
        f"divergence/pydoc-topics@{size}+2/{path}/{what}"
        for size, path in ((160, "prefill"), (12, "decode"))
        for what in plain + banded
    ]
    assert set(values.values()) == {0.0}
    items = measured.items
    assert set(items.metric) == set(values)
    # Bands of a window hold all of its positions, each once.
    for metric, rows in items.groupby("metric"):
        assert rows.tokens.sum() == (2 * 159 if "/prefill/" in metric else 2 * 11)
        assert not rows.item_id.duplicated().any()
    found = items[items.metric == "divergence/pydoc-topics@160+2/prefill/kl-by-position"]
    assert found.group_position.tolist() == ["1-15", "16-63", "64-255"] * 2
    assert found.tokens.tolist() == [15, 48, 96] * 2
    assert found.cluster.tolist() == ["windows-00000-00000"] * 3 + ["windows-00001-00001"] * 3
    assert {(metric.ci_low, metric.ci_high) for metric in measured.metrics if "-by-" not in metric.id} == {(0.0, 0.0)}
    assert found.group_frequency.isna().all()
    # The decode path sees the same words as the prefill path, so its record is the prefill's, to rounding.
    prefill = np.fromfile(scratch / "prefill-00000.f32", np.float32).reshape(159, -1)[:11]
    decode = np.fromfile(scratch / "decode-00000.f32", np.float32).reshape(11, -1)
    np.testing.assert_allclose(decode, prefill, atol=5e-5)
