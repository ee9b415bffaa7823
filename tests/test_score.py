"""A run directory judged anew: nothing of what an earlier spec or earlier cells said is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import awqbench.confirmation
import awqbench.report
from awqbench.confirmation import confirm
from awqbench.errors import UserError
from awqbench.record.baseline import write_baseline
from awqbench.record.files import write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import load_run
from awqbench.record.schema import CellResult, Manifest, Metric
from awqbench.score import compare_run, judge_run, rescore
from awqbench.spec import RunSpec
from awqbench.suites.base import item_table

RULES: list[dict[str, Any]] = [{"metric": "perplexity/first", "margin": 0.05, "unit": "relative"}]
SUITES = ("first", "second")


def write_run(root: Path, gates: list[dict[str, Any]], loss: float = 0.0) -> Path:
    """Two cells on each of two suites; `loss` is the candidate's on every window, nats."""
    backends = {"reference": {"kind": "reference"}, "awq": {"kind": "awq"}}
    spec = {"suites": {name: {"kind": "perplexity", "windows": 20} for name in SUITES}, "backends": backends}
    manifest = Manifest(
        awqbench_version="0", created="now", finished="now", spec=spec, spec_hash="s", policy_hash="p", model={},
        gates=gates,
    )  # fmt: skip
    write_model(root / "manifest.json", manifest)
    for suite in SUITES:
        for name, role, shift in (("reference", "reference", 0.0), ("awq", "candidate", loss)):
            scores = np.linspace(2.9, 3.1, 20) + shift
            id, folder = f"perplexity/{suite}", RunDirectory(root).cell(name, suite)
            metric = Metric(
                id=id, value=float(np.exp(scores.mean())), unit="perplexity", n=20, protocol="p",
                higher_is_better=False, pairing="log-ratio",
            )  # fmt: skip
            result = CellResult(
                backend=name, suite=suite, kind="perplexity", role=role, key=str(loss), status="ok", metrics=[metric]
            )
            write_model(folder / "result.json", result)
            rows = [{"metric": id, "item_id": f"w{i:02d}", "score": score} for i, score in enumerate(scores)]
            item_table(rows).to_parquet(folder / "items.parquet")
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


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The specs that were measured again; what is found is the same loss on the suites of the spec."""
    specs: list[RunSpec] = []

    def measure(spec: RunSpec, out: Path, watcher: Any, confirms: dict[str, str]) -> None:
        specs.append(spec)
        manifest = load_run(write_run(out, [], loss=1.0)).manifest
        write_model(out / "manifest.json", manifest.model_copy(update={"confirms": confirms}))
        for suite in {*SUITES} - spec.suites.keys():
            for backend in ("reference", "awq"):
                shutil.rmtree(RunDirectory(out).cell(backend, suite))

    monkeypatch.setattr(awqbench.confirmation, "measure", measure)
    return specs


def test_a_confirmation_against_another_reference_is_not_heard(
    tmp_path: Path, rendered: list[Any], measured: list[RunSpec]
) -> None:
    rescore(write_run(tmp_path, RULES, loss=1.0))
    found = confirm(tmp_path)
    assert found.verdict is not None
    assert found.verdict.rules[0].confirmation is not None
    for name in ("reference", "awq"):
        write_run(tmp_path, RULES, loss=1.0)
        assert judge_run(load_run(tmp_path), write=False).rules[0].confirmation is not None
        cell = RunDirectory(tmp_path).cell(name, "first")
        result = CellResult.model_validate_json((cell / "result.json").read_text())
        write_model(cell / "result.json", result.model_copy(update={"key": "measured again"}))
        assert judge_run(load_run(tmp_path), write=False).rules[0].confirmation is None


def test_confirming_by_other_rules_keeps_what_was_confirmed(
    tmp_path: Path, rendered: list[Any], measured: list[RunSpec]
) -> None:
    rescore(write_run(tmp_path / "run", RULES, loss=1.0))
    policy = tmp_path / "policy.toml"
    policy.write_text('[[gates]]\nmetric = "perplexity/second"\nmargin = 0.05\nunit = "relative"\n')
    confirm(tmp_path / "run")
    confirm(tmp_path / "run", policy)
    assert [[*spec.suites] for spec in measured] == [["first"], ["first", "second"]]
    (rule,) = judge_run(load_run(tmp_path / "run"), write=False).rules
    assert rule.confirmation is not None
    assert rule.confirmation.outcome == "confirmed"


def test_what_the_policy_alone_counts_as_failed_is_not_measured_again(
    tmp_path: Path, rendered: list[Any], measured: list[RunSpec]
) -> None:
    """A single cluster shows nothing, and nothing is what more windows of it would show."""
    folder = RunDirectory(write_run(tmp_path, [{**RULES[0], "on_inconclusive": "fail"}], loss=1.0)).cell("awq", "first")
    pd.read_parquet(folder / "items.parquet").assign(cluster="one").to_parquet(folder / "items.parquet")
    found = confirm(tmp_path)
    assert found.verdict is not None
    assert (found.verdict.overall, measured) == ("fail", [])


def test_a_look_from_another_side_leaves_the_run_its_comparison(tmp_path: Path, rendered: list[Any]) -> None:
    run = rescore(write_run(tmp_path, RULES))
    assert compare_run(run, "awq").reference == "awq"
    assert run.comparison == load_run(tmp_path).comparison


def test_a_baseline_file_without_answers_tells_of_no_other_answers(tmp_path: Path, rendered: list[Any]) -> None:
    """All items that are wrong in both had "another wrong answer" of a run beside its own baseline."""
    folder = RunDirectory(write_run(tmp_path / "run", RULES)).cell("awq", "first")
    items = pd.read_parquet(folder / "items.parquet").assign(correct=[True, False] * 10, prediction="B")
    items.to_parquet(folder / "items.parquet")
    run, file = load_run(tmp_path / "run"), tmp_path / "kept.json"
    write_baseline(run, file)
    for baseline in (tmp_path / "run", file):
        flips = compare_run(run, str(baseline)).differences[0].flips
        assert flips is not None
        assert (flips.n, flips.correct_to_wrong, flips.wrong_to_correct, flips.wrong_to_wrong) == (20, 0, 0, 0)


def test_another_calibration_text_is_no_other_data(tmp_path: Path, rendered: list[Any]) -> None:
    """Whether it made the checkpoint worse is what is asked; a text that is measured must be the same."""
    now, earlier = (load_run(write_run(tmp_path / name, RULES)) for name in ("now", "earlier"))
    for run, digest in ((now, "new"), (earlier, "old")):
        run.manifest.spec = {**run.manifest.spec, "quantize": {"calibration": "chats.jsonl"}}
        run.manifest.data = {"chats.jsonl": digest, "pydoc-topics": "same"}
        write_model(RunDirectory(run.path).manifest, run.manifest)
    assert judge_run(now, baseline=earlier.path, write=False).overall == "pass"
    now.manifest.data["pydoc-topics"] = "other"
    with pytest.raises(UserError, match="measured on other data: pydoc-topics changed"):
        judge_run(now, baseline=earlier.path, write=False)
    now.manifest.spec["quantize"] = {"calibration": "pydoc-topics"}  # a text that is measured as well
    with pytest.raises(UserError, match="pydoc-topics changed"):
        judge_run(now, baseline=earlier.path, write=False)


def test_an_unfinished_run_is_not_compared_without_a_word(tmp_path: Path) -> None:
    """It may hold a candidate's cells of the spec before, beside a reference that was measured anew."""
    run = load_run(write_run(tmp_path, RULES))
    assert compare_run(run, write=False).notes == []
    run.manifest.finished = None
    for baseline in (None, "awq", str(tmp_path)):
        assert "is unfinished" in compare_run(run, baseline, write=False).notes[0]
    assert not RunDirectory(tmp_path).comparison.exists()


def test_what_the_baseline_lacks_is_named(tmp_path: Path, rendered: list[Any]) -> None:
    """A suite or a backend by another name is held against today's reference: a pass says nothing of the baseline."""
    now, earlier = (write_run(tmp_path / name, RULES) for name in ("now", "earlier"))

    def notes() -> list[str]:
        judged = judge_run(load_run(now), baseline=earlier, write=False)
        return [note for note in judged.notes if "judged by" not in note]

    assert notes() == []
    shutil.rmtree(RunDirectory(earlier).cell("awq", "first"))
    assert notes() == []  # held against the earlier run's reference
    shutil.rmtree(RunDirectory(earlier).cell("reference", "first"))
    assert notes() == [f"{earlier} has no figures of awq/first: held against this run's reference"]


def test_a_run_is_compared_with_an_earlier_one(tmp_path: Path, rendered: list[Any]) -> None:
    now, earlier = write_run(tmp_path / "now", RULES, loss=0.03), write_run(tmp_path / "earlier", RULES, loss=0.01)
    run, file = load_run(now), tmp_path / "kept.json"
    write_baseline(load_run(earlier), file)
    for path in (earlier, file):
        found = compare_run(run, str(path))
        assert [(row.baseline, row.candidate, row.suite) for row in found.differences] == [
            (f"awq in {path.name}", "awq", suite) for suite in SUITES
        ]
        assert [row.delta for row in found.differences] == pytest.approx([np.expm1(0.02)] * 2)
        assert {row.n for row in found.differences} == {20}
        assert found.notes == []
    assert run.comparison is None  # another question than the run's own
    assert not RunDirectory(now).comparison.exists()

    shutil.rmtree(RunDirectory(earlier).cell("awq", "first"))
    assert compare_run(run, str(earlier)).notes == ["earlier has no figures of awq/first"]
    with pytest.raises(UserError, match=r"no backend 'gone' .*allowed: awq, reference; an earlier run, or a file"):
        compare_run(run, "gone")


def test_groups_are_compared_with_an_earlier_run(tmp_path: Path, rendered: list[Any]) -> None:
    """One group got worse since, the other did not: seen against the baseline, whatever the reference."""
    now, earlier = (write_run(tmp_path / name, RULES) for name in ("now", "earlier"))
    for path, shift in ((now, 0.1), (earlier, 0.0)):
        file = RunDirectory(path).cell("awq", "first") / "items.parquet"
        items, half = pd.read_parquet(file), ["a", "b"] * 10
        items["group_half"] = half
        items["score"] += [shift * (name == "a") for name in half]
        items.to_parquet(file)
    rows = {row.group: row.did for row in compare_run(load_run(now), str(earlier)).groups}
    assert rows == pytest.approx({"a": np.expm1(0.1), "b": np.expm1(-0.1)})
