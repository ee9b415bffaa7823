"""The perplexity protocol on worked examples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from awqbench.backends.base import Scored
from awqbench.errors import UserError
from awqbench.spec import parse_spec
from awqbench.suites import perplexity
from awqbench.suites.base import Context


class Uniform:
    """An engine whose every log-probability is known: token t costs t/100 nats. The arithmetic around it is real."""

    def __init__(self) -> None:
        self.description = {"max_positions": 64}

    def offers(self, capability: str) -> bool:
        return True

    def score(self, sequences: Sequence[Sequence[int]], starts: Sequence[int], progress: object = None) -> list[Scored]:
        return [
            Scored(-np.array(ids[start:], np.float32) / 100, np.zeros(len(ids) - start, np.int32))
            for ids, start in zip(sequences, starts, strict=True)
        ]


def context(tiny_llama: Path, text: Path, window: int, windows: int | None = None, share: float = 1.0) -> Context:
    table = {"text": str(text), "window": window, **({"windows": windows} if windows else {})}
    spec = parse_spec({"suites": {"perplexity": table}})
    return Context(spec, spec.suites["perplexity"], Uniform(), tiny_llama, share=share)  # type: ignore[arg-type]


def test_a_worked_example(tiny_llama: Path, tmp_path: Path) -> None:
    # The byte tokenizer gives one id per byte. Ten bytes in windows of 4: two windows, a tail of two dropped.
    text = tmp_path / "t.txt"
    text.write_text("abcdefghij")
    case = context(tiny_llama, text, 4)
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


def test_budget_and_share_take_leading_windows(tiny_llama: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the quick brown fox jumps over the lazy dog" * 4)
    whole = perplexity.measure(context(tiny_llama, text, 8))
    some = perplexity.measure(context(tiny_llama, text, 8, windows=3))
    half = perplexity.measure(context(tiny_llama, text, 8, windows=3, share=0.5))
    # A budget is another protocol and has another id; the noise floor's share pairs with what it repeats.
    assert some.metrics[0].id == half.metrics[0].id == whole.metrics[0].id + "+3"
    assert some.items["score"].tolist() == whole.items["score"].tolist()[:3]
    assert half.items["score"].tolist() == whole.items["score"].tolist()[:1]


def test_one_window_has_no_interval() -> None:
    assert perplexity.perplexity([1.0]) == (math.e, None, None)


@pytest.mark.parametrize(
    ("content", "window", "message"), [("abc", 8, "fewer than one window"), ("abc" * 99, 65, "allowed: 2 to 64")]
)
def test_windows_that_do_not_fit(tiny_llama: Path, tmp_path: Path, content: str, window: int, message: str) -> None:
    text = tmp_path / "t.txt"
    text.write_text(content)
    with pytest.raises(UserError, match=message):
        perplexity.measure(context(tiny_llama, text, window))


@pytest.mark.data
def test_a_trained_model_reaches_its_known_perplexity(data_dir: Path, tmp_path: Path) -> None:
    """stories260K, a true float32 model, through a real worker: 3.96 over 80 TinyStories, each after a BOS."""
    from awqbench.sources.models import load_tokenizer
    from awqbench.worker.client import Worker

    folder = data_dir / "models" / "stories260k"
    tokenizer = load_tokenizer(folder)
    stories = (data_dir / "tinystories" / "sample.txt").read_text().split("<|endoftext|>")[1:81]
    sequences = [tokenizer(story.strip())["input_ids"][:512] for story in stories]
    options = {"weights": str(folder), "dtype": "float32", "device": "cpu", "threads": 2}
    with Worker("reference", options, tmp_path / "log.txt") as worker:
        scored = worker.score(sequences, [1] * len(sequences))
    losses = np.concatenate([-item.logprobs for item in scored])
    assert math.exp(losses.mean()) == pytest.approx(3.96, abs=0.1)
