"""A run directory judged anew: nothing of what an earlier spec or earlier cells said is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awqbench.confirmation
import awqbench.report
from awqbench.confirmation import confirm
from awqbench.errors import UserError
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import load_run
from awqbench.record.schema import CellResult, Manifest, Metric
from awqbench.score import judge_run, rescore
from awqbench.suites.base import item_table

RULES: list[dict[str, Any]] = [{"metric": "perplexity/*", "margin": 0.05, "unit": "relative"}]


def write_run(root: Path, gates: list[dict[str, Any]], loss: float = 0.0) -> Path:
    """Two cells of one suite; `loss` is the candidate's on every window, nats."""
    spec = {"suites": {"perplexity": {}}, "backends": {"reference": {"kind": "reference"}, "awq": {"kind": "awq"}}}
    manifest = Manifest(
        awqbench_version="0", created="now", finished="now", spec=spec, spec_hash="s", policy_hash="p", model={},
        gates=gates,
    )  # fmt: skip
    write_model(root / "manifest.json", manifest)
    for name, role, shift in (("reference", "reference", 0.0), ("awq", "candidate", loss)):
        scores = np.linspace(2.9, 3.1, 20) + shift
        rows = [{"metric": "perplexity/t", "item_id": f"w{i:02d}", "score": s} for i, s in enumerate(scores)]
        metric = Metric(
            id="perplexity/t", value=float(np.exp(scores.mean())), unit="perplexity", n=20, protocol="p",
            higher_is_better=False, pairing="log-ratio",
        )  # fmt: skip
        result = CellResult(
            backend=name, suite="perplexity", kind="perplexity", role=role, key=str(loss), status="ok", metrics=[metric]
        )
        write_model(RunDirectory(root).cell(name, "perplexity") / "result.json", result)
        item_table(rows).to_parquet(RunDirectory(root).cell(name, "perplexity") / "items.parquet")
    return root


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The verdicts that lay in the run directory when it was rendered; nothing is drawn."""
    found: list[Any] = []
    monkeypatch.setattr(awqbench.report, "render", lambda path: found.append(load_run(path).verdict))
    return found


def test_a_verdict_by_rules_that_are_gone_is_gone(tmp_path: Path, rendered: list[Any]) -> None:
    first = rescore(write_run(tmp_path, RULES))
    assert first.verdict is not None
    assert first.verdict.overall == "pass"
    assert rescore(write_run(tmp_path, [], loss=1.0)).verdict is None
    assert rendered == [first.verdict, None]


def test_rules_that_fit_nothing_leave_no_earlier_verdict(tmp_path: Path, rendered: list[Any]) -> None:
    rescore(write_run(tmp_path, RULES))
    with pytest.raises(UserError, match="matches no metric"):
        rescore(write_run(tmp_path, [{"metric": "tasks/*", "margin": 0.05}], loss=1.0))
    assert rendered[-1] is None
    assert not RunDirectory(tmp_path).verdict.exists()
    assert load_run(tmp_path).comparison is not None


def test_a_confirmation_against_another_reference_is_not_heard(
    tmp_path: Path, rendered: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(spec: Any, out: Path, watcher: Any, confirms: dict[str, str]) -> None:
        manifest = load_run(write_run(out, [], loss=1.0)).manifest
        write_model(out / "manifest.json", manifest.model_copy(update={"confirms": confirms}))

    monkeypatch.setattr(awqbench.confirmation, "measure", measure)
    rescore(write_run(tmp_path, RULES, loss=1.0))
    found = confirm(tmp_path)
    assert found.verdict is not None
    assert found.verdict.rules[0].confirmation is not None
    for name in ("reference", "awq"):
        write_run(tmp_path, RULES, loss=1.0)
        assert judge_run(load_run(tmp_path), write=False).rules[0].confirmation is not None
        cell = RunDirectory(tmp_path).cell(name, "perplexity")
        result = next(c.result for c in load_run(tmp_path).cells if c.result.backend == name)
        write_model(cell / "result.json", result.model_copy(update={"key": "measured again"}))
        assert judge_run(load_run(tmp_path), write=False).rules[0].confirmation is None
