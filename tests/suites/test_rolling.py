"""Rolling perplexity: worked by hand, and against lm-eval's own model, windows and aggregation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.errors import UserError
from awqbench.suites import rolling
from awqbench.suites.base import Context
from awqbench.suites.tasks import quiet

DOCUMENTS = ["ab cd", "x", "the quick brown fox jumps over the lazy dog\nand naïvely runs on"]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in DOCUMENTS))
    return path


def values(context: Context) -> dict[str, Any]:
    return {metric.id.rsplit("/", 1)[-1]: metric for metric in rolling.measure(context).metrics}


def test_a_worked_example(make_context: Callable[..., Context], uniform_worker: Any, jsonl: Path) -> None:
    # One id per byte, and token t costs t / 100 nats whatever stands before it: nothing may be counted twice or lost.
    case = make_context("perplexity", protocol="documents", text=str(jsonl), text_field="body", window=8)
    case.worker = uniform_worker
    measured = rolling.measure(case)
    losses = [sum(case.tokenizer(text)["input_ids"]) / 100 for text in DOCUMENTS]
    words, sizes = [2, 1, 13], [len(text.encode()) for text in DOCUMENTS]
    word, byte, bits = measured.metrics
    assert word.id.startswith("perplexity/documents-")
    assert word.id.endswith("/rolling@8/word_perplexity")
    assert word.value == pytest.approx(math.exp(sum(losses) / sum(words)), rel=1e-5)
    assert byte.value == pytest.approx(math.exp(sum(losses) / sum(sizes)), rel=1e-5)
    assert bits.value == pytest.approx(math.log2(byte.value), rel=1e-5)
    assert word.n == 3
    assert word.ci_low < word.value < word.ci_high
    # In windows of eight, seven are predicted: 1, 1 and ten windows.
    assert (word.detail["windows"], word.detail["tokens_predicted"]) == (2 + -(-sizes[2] // 7), sum(sizes))
    by_document = math.exp(np.mean([loss / count for loss, count in zip(losses, words, strict=True)]))
    assert word.detail["mean_over_documents"] == pytest.approx(by_document, rel=1e-5)
    # The rows' weighted mean is the figure's logarithm, so that two models' rows pair to the ratio of their figures.
    for metric in measured.metrics:
        rows = measured.items[measured.items.metric == metric.id]
        logarithm = metric.value if metric is bits else math.log(metric.value)
        assert np.average(rows.score, weights=rows.weight) == pytest.approx(logarithm, rel=1e-9)
        assert rows.nll.tolist() == pytest.approx(losses, rel=1e-5)
        assert rows.cluster.is_unique


def test_a_text_without_spaces_has_no_perplexity_per_word(
    make_context: Callable[..., Context], uniform_worker: Any, tmp_path: Path
) -> None:
    """A Chinese document is a word or two of thousands of nats, whose exponential no float holds."""
    path = tmp_path / "zh.jsonl"
    path.write_text(json.dumps({"text": "这里没有空格" * 60}, ensure_ascii=False) + "\n", encoding="utf-8")
    case = make_context("perplexity", protocol="documents", text=str(path), window=64)
    case.worker = uniform_worker
    measured = rolling.measure(case)
    assert [metric.id.rsplit("/", 1)[-1] for metric in measured.metrics] == ["byte_perplexity", "bits_per_byte"]
    assert set(measured.items.metric) == {metric.id for metric in measured.metrics}
    (note,) = measured.notes
    assert note.startswith("no word_perplexity: ")
    # Beside enough words it has one, though the mean over documents has none.
    path.write_text(path.read_text() + json.dumps({"text": "a b c d e f " * 200}) + "\n", encoding="utf-8")
    measured_again = rolling.measure(case)
    word, _, _ = measured_again.metrics
    rows = measured_again.items[measured_again.items.metric == word.id]
    assert word.value == pytest.approx(math.exp(rows.nll.sum() / rows.weight.sum()))
    assert 1 < word.value < math.inf
    assert word.detail["mean_over_documents"] is None


def test_a_share_keeps_the_rows_of_the_whole(make_context: Callable[..., Context], jsonl: Path) -> None:
    keys = {"protocol": "documents", "text": str(jsonl), "text_field": "body", "window": 16}
    whole, part = (rolling.measure(make_context("perplexity", share=share, **keys)) for share in (1.0, 0.7))
    budget = rolling.measure(make_context("perplexity", **keys, documents=2))
    assert part.metrics[0].id == whole.metrics[0].id
    assert part.metrics[0].n == budget.metrics[0].n == 2
    assert budget.metrics[0].id.endswith("/rolling@16+2/word_perplexity")
    # The noise floor's two documents pair with the reference's first two; a budget is another protocol.
    first = [m.items[m.items.metric == m.metrics[0].id].score.tolist()[:2] for m in (whole, part)]
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    assert part.metrics[0].value == pytest.approx(budget.metrics[0].value, rel=1e-6)


def test_against_lm_eval(make_context: Callable[..., Context], jsonl: Path, tiny_llama: Path) -> None:
    with quiet():
        from lm_eval.api.instance import Instance
        from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(pretrained=str(tiny_llama), device="cpu", dtype="float32", batch_size=4, max_length=15)
        requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(DOCUMENTS)]
        likelihoods = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    ours = values(make_context("perplexity", protocol="documents", text=str(jsonl), text_field="body", window=16))
    words = [(value, len(text.split())) for value, text in zip(likelihoods, DOCUMENTS, strict=True)]
    sizes = [(value, len(text.encode())) for value, text in zip(likelihoods, DOCUMENTS, strict=True)]
    assert ours["word_perplexity"].value == pytest.approx(weighted_perplexity(words), rel=1e-5)
    assert ours["byte_perplexity"].value == pytest.approx(weighted_perplexity(sizes), rel=1e-5)
    assert ours["bits_per_byte"].value == pytest.approx(bits_per_byte(sizes), rel=1e-5)


def test_wikitext_counts_and_detokenizes_as_lm_eval(
    make_context: Callable[..., Context], uniform_worker: Any, tmp_path: Path
) -> None:
    from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

    file = tmp_path / "wiki.test.raw"
    pages = [
        " = First = \n \n It 's 1 @,@ 000 ( a lot ) . \n \n = = Deeper = = \n \n More . ",
        " = Second = \n \n b . \n",
    ]
    file.write_text(" \n" + "\n".join(pages))
    context = make_context("perplexity", protocol="wikitext", text=str(file), window=32)
    context.worker = uniform_worker
    metric = values(context)["word_perplexity"]
    texts = [wikitext_detokenizer({"page": page}) for page in pages]
    assert "1,000 (a lot)" in texts[0]
    loss = sum(sum(context.tokenizer(text)["input_ids"]) for text in texts) / 100
    words = sum(process_results({"page": page}, (0.0,))["word_perplexity"][1] for page in pages)
    assert metric.value == pytest.approx(math.exp(loss / words), rel=1e-5)
    assert "/wikitext@32/" in metric.id
    assert metric.detail["words"] == words


def test_sources_that_do_not_fit(make_context: Callable[..., Context], tmp_path: Path) -> None:
    plain, talk = tmp_path / "plain.txt", tmp_path / "talk.jsonl"
    plain.write_text("no title here\n")
    talk.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}) + "\n")
    with pytest.raises(UserError, match="no line ' = Title = '"):
        rolling.measure(make_context("perplexity", protocol="wikitext", text=str(plain), window=8))
    with pytest.raises(UserError, match="pydoc-topics is no WikiText"):
        rolling.measure(make_context("perplexity", protocol="wikitext", text="pydoc-topics", window=8))
    with pytest.raises(UserError, match="holds conversations"):
        rolling.measure(make_context("perplexity", protocol="documents", text=str(talk), window=8))
    with pytest.raises(UserError, match="longer than the model's context"):
        rolling.measure(make_context("perplexity", protocol="documents", text=str(plain), window=10**6))


@pytest.mark.data
def test_a_trained_model_reaches_its_known_perplexity(
    make_context: Callable[..., Context], data_dir: Path, tmp_path: Path
) -> None:
    """stories260K, a true float32 model, through a real worker: 3.96 over TinyStories."""
    from awqbench.sources.models import load_tokenizer
    from awqbench.worker.client import Worker

    folder = data_dir / "models" / "stories260k"
    stories = (data_dir / "tinystories" / "sample.txt").read_text().split("<|endoftext|>")[1:81]
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": story.strip()}) + "\n" for story in stories))
    context = make_context("perplexity", protocol="documents", text=str(path), window=512)
    context.__dict__["tokenizer"] = load_tokenizer(folder)
    options = {"weights": str(folder), "dtype": "float32", "device": "cpu", "threads": 1}
    with Worker("reference", options, tmp_path / "log.txt") as worker:
        context.worker = worker
        measured = rolling.measure(context)
        # What protocols of perplexity depend on, as the cell's engine records it.
        assert worker.description["attention"] == "sdpa"
        assert worker.description["batch_size"] == 32
        assert worker.description["dtype"] == "float32"
    rows = measured.items[measured.items.metric == measured.metrics[0].id]
    assert math.exp(rows.nll.sum() / rows.tokens.sum()) == pytest.approx(3.96, abs=0.1)
