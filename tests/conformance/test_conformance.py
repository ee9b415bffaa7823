"""The built-in kinds and the documented example keep their promises; a backend with one mistake is caught at it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from awqbench.backends.kind import Kind
from awqbench.conformance import Report, conform
from awqbench.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs"
KIND = Kind("bigrams", "mine.engine:Bigrams", "", weights="model", options={"seed": "seed", "wrong": "mistake"})
Conform = Callable[..., Report]

MISTAKES = '''
from collections import defaultdict
import numpy as np
from awqbench.backends.base import Scored, Timing, TopK
from mine.engine import Bigrams

class Wrong(Bigrams):
    """One mistake at a time."""

    def load(self, options):
        self.wrong = options["settings"]["wrong"]
        found = super().load(options)
        self.kept = []
        more = {"topk": ["topk-logprobs"], "time": ["time"], "decode": ["decode-logprobs"], "tokens": ["tokenize"],
                "texts": ["stop-texts"]}
        found["capabilities"] += more.get(self.wrong, [])
        found["topk"] = 20
        if self.wrong == "description":
            found["kernel"] = None
        if self.wrong == "temperature":
            self.table = self.table / 2
        return found

    def score(self, sequences, starts):
        if self.wrong == "order":
            sequences, starts = zip(*sorted(zip(sequences, starts), key=lambda pair: -len(pair[0])))
        if self.wrong == "starts":
            starts = [1] * len(starts)
        if self.wrong == "memory":
            self.kept.append(np.ones(2**20))
        for scored in super().score(sequences, starts):
            if self.wrong == "batching":
                scored = Scored(scored.logprobs - 0.01 * len(sequences), scored.argmax)
            if self.wrong == "gather":
                scored = Scored(scored.logprobs - 0.01, scored.argmax)
            if self.wrong == "nan":
                scored.logprobs[-1:] = np.nan
            yield scored

    def logprobs(self, ids, start, path):
        shift = 0.3 if path == "decode" else 0.0
        for rows in super().logprobs(ids, start, path):
            yield rows[:, ::-1] * shift + rows * (1 - shift)

    def topk_logprobs(self, ids, start, k):
        rows = self.table[ids[start - 1 : -1]]
        worst = np.argsort(rows, axis=1)[:, :k].astype(np.int32)
        yield TopK(worst, np.take_along_axis(rows, worst, axis=1))

    def generate_until(self, prompts, count, stops, texts):
        return super().generate(prompts, count, stops)

    def generate(self, prompts, count, stops):
        if self.wrong == "greedy":
            return [[(token + 1) % self.vocabulary for token in a] for a in super().generate(prompts, count, stops)]
        if self.wrong == "stops":
            return super().generate(prompts, count, [])
        return super().generate(prompts, count, stops)

    def time(self, prompts, new_tokens):
        return Timing(0.1, [0.1] * new_tokens)

    def tokenize(self, texts, special):
        return [[7, *map(ord, text)] for text in texts]
'''
CAUGHT = {
    "description": {"description is complete"},
    "order": {"order and batching change nothing", "scores are log probabilities", "starts are honoured",
              "nothing to score is no error", "memory does not grow"},
    "starts": {"starts are honoured", "nothing to score is no error"},
    "batching": {"order and batching change nothing", "scores are in the distributions"},
    "gather": {"scores are in the distributions"},
    "nan": {"scores are log probabilities", "order and batching change nothing", "starts are honoured",
            "scores are in the distributions"},
    "temperature": {"distributions sum to one"},
    "decode": {"decoding agrees with prefill"},
    "topk": {"top tokens are the top"},
    "greedy": {"generation is greedy", "generation stops"},
    "stops": {"generation stops"},
    "texts": {"a text ends generation"},
    "time": {"every step is timed"},
    "tokens": {"tokenizers agree"},
    "memory": {"memory does not grow"},
}  # fmt: skip


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of docs/backends.md, installed as its pyproject says, with the mistakes beside it."""
    folder = tmp_path_factory.mktemp("plugin")
    text = (DOCS / "backends.md").read_text(encoding="utf-8")
    engine, declaration = re.findall(r"`mine/\w+\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)
    (name, value) = re.findall(r'entry-points."awqbench.backends"\]\n(\w+) = "(.*?)"', text)[0]
    (folder / "mine").mkdir()
    (folder / "mine" / "engine.py").write_text(engine)
    (folder / "mine" / "__init__.py").write_text(declaration)
    (folder / "mine" / "mistakes.py").write_text(MISTAKES)
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[awqbench.backends]\n{name} = {value}\n")
    return folder


@pytest.fixture(scope="module")
def check(example: Path, tiny_llama: Path) -> Conform:
    def run(kind: str | Kind, settings: dict[str, object] | None = None) -> Report:
        environment = {"PYTHONPATH": str(example)}
        return conform(kind, settings, model=str(tiny_llama), device="cpu", threads=1, environment=environment)

    return run


def test_the_reference_conforms(check: Conform) -> None:
    report = check("reference")
    assert not report.failed, report
    offered = {finding.name for finding in report.findings if finding.status == "pass"}
    assert len(report.findings) - len(offered) == 1  # it has no need of a top k
    assert "the models own weights say the same" in offered


@pytest.mark.slow
def test_packed_weights_conform(check: Conform) -> None:
    report = check("awq")
    assert not report.failed, report
    assert sum(finding.status == "pass" for finding in report.findings) == 17


@pytest.mark.slow
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp (xllamacpp) is not installed")
def test_llamacpp_conforms(check: Conform) -> None:
    report = check("llamacpp")
    assert not report.failed, report
    assert "the models own weights say the same" in {f.name for f in report.findings if f.status == "pass"}


def test_the_documented_example_runs_as_a_plugin_from_the_command_line(example: Path, tiny_llama: Path) -> None:
    command = [sys.executable, "-P", "-m", "awqbench.conformance"]
    environment = {**os.environ, "PYTHONPATH": str(example)}
    done = subprocess.run(
        [*command, "bigrams", "--option", "seed=7", "--model", tiny_llama, "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["conforms"]
    statuses = [finding["status"] for finding in found["findings"]]
    assert (statuses.count("pass"), statuses.count("not offered")) == (13, 6)


@pytest.mark.parametrize("wrong", CAUGHT)
def test_a_mistake_is_caught(check: Conform, wrong: str) -> None:
    report = check(replace(KIND, target="mine.mistakes:Wrong"), {"wrong": wrong})
    assert {finding.name for finding in report.failed} == CAUGHT[wrong], report
    assert "fail " in str(report)


def test_an_option_that_does_not_exist_is_refused(check: Conform) -> None:
    with pytest.raises(UserError, match=r"unknown option of bigrams 'sed'.*seed"):
        check(KIND, {"sed": 1})
