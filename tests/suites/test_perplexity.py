"""The perplexity protocol on worked examples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.sources import documents
from awqbench.spec import parse_spec
from awqbench.suites import perplexity
from awqbench.suites.base import Context
from awqbench.suites.means import mean_metric
from awqbench.suites.windows import APART, neighbours

MakeContext = Callable[..., Context]


@pytest.fixture
def context(make_context: Callable[..., Context], uniform_worker: Any) -> Callable[..., Context]:
    """context(text, window, share=1.0, **keys): the perplexity suite on an engine whose log-probabilities are known."""

    def make(text: Path, window: int, share: float = 1.0, **keys: Any) -> Context:
        made = make_context("perplexity", share=share, text=str(text), window=window, **keys)
        made.worker = uniform_worker
        return made

    return make


def test_a_worked_example(context: MakeContext, tmp_path: Path) -> None:
    # The byte tokenizer gives one id per byte. Ten bytes in windows of 4: two windows, a tail of two dropped.
    text = tmp_path / "t.txt"
    text.write_text("abcdefghij")
    case = context(text, 4)
    ids = case.tokenizer("abcdefghij")["input_ids"]
    measured = perplexity.measure(case)
    first, second = sum(ids[1:4]) / 300, sum(ids[5:8]) / 300  # each window's first token is context only
    metric = measured.metrics[0]
    assert metric.id == f"perplexity/t-{hashlib.sha256(b'abcdefghij').hexdigest()[:8]}@4"
    assert metric.n == 2
    assert metric.value == pytest.approx(math.exp((first + second) / 2), rel=1e-6)
    assert measured.items["score"].tolist() == pytest.approx([first, second], rel=1e-6)
    assert measured.items["tokens"].tolist() == [3, 3]
    assert metric.ci_low < metric.value < metric.ci_high


def test_budget_and_share_take_leading_windows(context: MakeContext, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the quick brown fox jumps over the lazy dog" * 4)
    whole = perplexity.measure(context(text, 8))
    some = perplexity.measure(context(text, 8, windows=3))
    half = perplexity.measure(context(text, 8, windows=3, share=0.5))
    # A budget is another protocol and has another id; the noise floor's share pairs with what it repeats.
    assert some.metrics[0].id == half.metrics[0].id == whole.metrics[0].id + "+3"
    assert some.items["score"].tolist() == whole.items["score"].tolist()[:3]
    assert half.items["score"].tolist() == whole.items["score"].tolist()[:1]


def test_the_interval_is_over_batches_of_neighbouring_windows(context: MakeContext, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("a quick brown fox jumps over the lazy dog. " * 40)
    for windows, clusters in ((16, 4), (1, 1)):
        (metric,) = perplexity.measure(context(text, 8, windows=windows)).metrics
        assert (metric.n, metric.detail["clusters"]) == (windows, clusters)
        assert (metric.ci_low is None) == (windows == 1)


def test_sixteen_windows_have_three_degrees_of_freedom() -> None:
    """They make 4 batches, here of 4 equal losses: t with 3 degrees of freedom, not 15."""
    losses = [1.0] * 4 + [2.0] * 4 + [3.0] * 4 + [4.0] * 4
    clusters = neighbours(range(16), 8)
    found = mean_metric("p", losses, clusters, unit="", protocol="", higher_is_better=False, pairing="log-ratio")
    half = 3.1824 * math.sqrt(5 / 3) / 2
    assert found.value == math.exp(2.5)
    assert (found.ci_low, found.ci_high) == pytest.approx((math.exp(2.5 - half), math.exp(2.5 + half)), rel=1e-4)


def test_neighbours_are_called_by_their_places() -> None:
    named = ["windows-00004-00006", "windows-00007-00008", "windows-00009-00010", "windows-00011-00012"]
    assert neighbours(range(4, 13), 8) == [
        name for name, size in zip(named, (3, 2, 2, 2), strict=True) for _ in range(size)
    ]
    assert neighbours([7], 8) == ["windows-00007-00007"]


def test_windows_from_all_along_a_long_text_are_a_cluster_each() -> None:
    step = 1 + APART // 256
    assert len(set(neighbours(range(0, 16 * step, step), 256))) == 16
    assert len(set(neighbours(range(0, 16 * (step - 1), step - 1), 256))) == 4
    assert len(set(neighbours(range(16), APART))) == 4  # long, but next to each other


@pytest.mark.parametrize(
    ("content", "window", "message"), [("abc", 8, "fewer than one window"), ("abc" * 99, 65, "allowed: 2 to 64")]
)
def test_windows_that_do_not_fit(context: MakeContext, tmp_path: Path, content: str, window: int, message: str) -> None:
    text = tmp_path / "t.txt"
    text.write_text(content)
    with pytest.raises(UserError, match=message):
        perplexity.measure(context(text, window))


def test_c4_joins_documents_by_a_space_and_stops_at_its_last_window(
    context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perplexity, "C4_DOCUMENTS", 3)
    monkeypatch.setattr(perplexity, "C4_WINDOWS", 2)
    source = tmp_path / "c4.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("abc", "de\n", "fgh", "never read")))
    case = context(source, 4, protocol="c4")
    measured = perplexity.measure(case)
    ids = case.tokenizer("abc de fgh")["input_ids"]
    losses = [sum(ids[1:4]) / 300, sum(ids[5:8]) / 300]
    assert measured.items["score"].tolist() == pytest.approx(losses, rel=1e-6)
    assert measured.metrics[0].id.startswith("perplexity/c4-")
    assert measured.metrics[0].id.endswith("/c4@4")
    assert measured.metrics[0].detail["windows_available"] == 2
    assert measured.notes == []
    monkeypatch.setattr(perplexity, "C4_WINDOWS", 9)
    (note,) = perplexity.measure(case).notes
    assert note == "3 documents make 2 windows of 4 tokens: published figures are of 3 documents and 9 windows"


def test_ptb_joins_its_lines_by_a_space(context: MakeContext, tmp_path: Path) -> None:
    source = tmp_path / "ptb.txt"
    source.write_text("ab \ncd\n")
    case = context(source, 5, protocol="ptb")
    measured = perplexity.measure(case)
    ids = case.tokenizer("ab cd")["input_ids"]
    assert measured.items["score"].tolist() == [pytest.approx(sum(ids[1:]) / 400, rel=1e-6)]
    assert measured.metrics[0].id.endswith("/ptb@5")


@pytest.mark.parametrize("keys", [{"protocol": "ptb", "windows": 1}, {"protocol": "documents"}])
def test_what_was_not_read_of_a_hub_data_set_is_named(
    context: MakeContext, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    rows = [(f"row {i}", {"text": "abc"}) for i in range(documents.HUB_DOCUMENTS + 1)]
    monkeypatch.setattr(documents, "hub_refusal", lambda: None)
    monkeypatch.setattr(documents, "hub_rows", lambda *_: rows)
    documents._from_hub.cache_clear()
    case = context("hub:owner/name", 64, **keys)
    (note,) = perplexity.measure(case).notes
    assert note.startswith("the first 2048 rows of hub:owner/name were read, and it has more")
    del rows[-1]
    documents._from_hub.cache_clear()
    assert perplexity.measure(case).notes == []
    documents._from_hub.cache_clear()


def test_a_text_that_is_not_raw_is_named(context: MakeContext, tmp_path: Path) -> None:
    text = tmp_path / "wiki.test.tokens"
    text.write_text("the <unk> of the <unk>")
    (note,) = perplexity.measure(context(text, 4)).notes
    assert note.endswith("holds <unk>: published figures are of the raw text")


def test_the_record_says_what_the_figure_depends_on(context: MakeContext, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("abcdefghij" * 9)
    detail = perplexity.measure(context(text, 8, windows=7)).metrics[0].detail
    assert (detail["windows_available"], detail["text_tokens"], detail["tokens_predicted"]) == (11, 90, 49)
    assert len(detail["tokenizer"]) == 16


@pytest.mark.parametrize("cut", ["", "[:50%]"])
def test_jsonl_is_no_text(context: MakeContext, tmp_path: Path, cut: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "abcdefgh"}\n' * 4)
    with pytest.raises(UserError, match=r"holds documents, not one text .*c4, ptb, documents"):
        perplexity.measure(context(Path(f"{path}{cut}"), 4))


def test_autocorrelation_of_windows() -> None:
    assert perplexity.autocorrelation([1.0, 2.0, 1.0, 2.0, 1.0]) == pytest.approx(-1)
    assert perplexity.autocorrelation([1.0, 2.0, 3.0, 4.0]) == pytest.approx(1)
    assert perplexity.autocorrelation([1.0, 2.0, 1.0]) is None
    assert perplexity.autocorrelation([1.0] * 5) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"protocol": "documents", "windows": 3},
            "windows says nothing to protocol 'documents'",
        ),
        ({"documents": 3}, "documents says nothing to protocol 'windows' .allowed with it: windows"),
        ({"protocol": "wikitext", "text_field": "page"}, "text_field says nothing to protocol 'wikitext'"),
        ({"protocol": "window"}, "windows"),
    ],
)
def test_keys_of_another_protocol(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec({"suites": {"perplexity": table}})
