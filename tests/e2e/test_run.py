"""A whole run: what it leaves, that it can be judged and reported again, that nothing is measured twice."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from awqbench import load_run
from awqbench.record.schema import ITEM_COLUMNS

pytestmark = pytest.mark.slow

SUITES = ("perplexity", "divergence", "tasks", "fairness", "latency")
BACKENDS = ("reference", "reference-again", "awq", "rtn")
Command = Callable[..., subprocess.CompletedProcess[str]]


def stamps(run: Path) -> dict[str, int]:
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in sorted(run.glob("cells/*/*/*"))}


def test_every_cell_is_there_and_whole(finished: Path) -> None:
    run = load_run(finished)
    found = {(cell.result.backend, cell.result.suite): cell for cell in run.cells}
    # The reference has no divergence from itself: it is what the others are held against.
    assert set(found) == {(b, s) for b in BACKENDS for s in SUITES} - {("reference", "divergence")}
    for cell in found.values():
        assert cell.result.status == "ok", cell.result.reason
        assert cell.result.metrics
        assert list(cell.items.columns[: len(ITEM_COLUMNS)]) == list(ITEM_COLUMNS)
        assert cell.result.telemetry is not None
        assert cell.result.telemetry.gpus or cell.result.telemetry.gpu_note
    assert (finished / "cells" / "awq" / "perplexity" / "log.txt").is_file()
    assert not (finished / "scratch").exists()
    assert list((finished / "unfinished").glob("*")) == []


def test_the_reference_diverges_from_itself_by_rounding_only(finished: Path) -> None:
    metrics = load_run(finished).metrics.set_index(["backend", "id"])["value"]
    again = metrics["reference-again"].filter(regex="/kl(-reverse)?$")
    assert len(again) == 4
    assert (again < 1e-6).all()
    assert (metrics["awq"].filter(regex="/kl(-reverse)?$") > again.max()).all()


def test_four_bits_are_held_as_four_bits(finished: Path) -> None:
    found = {cell.result.backend: cell.result for cell in load_run(finished).cells if cell.result.suite == "latency"}
    assert found["awq"].memory["weights"] < 0.6 * found["reference"].memory["weights"]
    assert "dense" not in found["awq"].engine["kernel"]


def test_manifest_says_what_was_run_on_what(finished: Path) -> None:
    manifest = load_run(finished).manifest
    assert manifest.finished
    assert len(manifest.spec_hash) == len(manifest.policy_hash) == len(manifest.model["hash"]) == 64
    assert manifest.packages["torch"]
    assert manifest.hardware
    assert {"pydoc-topics[50%:]", "pydoc-topics[:50%]", "counterfactual", "task awqbench_commonplace"} <= set(
        manifest.data
    )


def test_reports_are_there_and_well_formed(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<script src" not in html
    for suite in SUITES:
        assert suite in html.lower()
    ElementTree.parse(finished / "junit.xml")
    assert "awq" in (finished / "report.md").read_text()


def test_running_again_measures_nothing(awqbench_here: Command, finished: Path, spec_file: Path) -> None:
    before, comparison = stamps(finished), (finished / "comparison.json").read_bytes()
    assert awqbench_here("run", spec_file, "--out", finished).returncode == 0
    assert stamps(finished) == before
    assert (finished / "comparison.json").read_bytes() == comparison


def test_a_changed_suite_touches_its_cells_alone(
    awqbench: Command, finished: Path, tmp_path: Path, spec_file: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = stamps(run)
    changed = tmp_path / "bench.toml"
    changed.write_text(spec_file.read_text().replace("windows = 6", "windows = 5"))
    assert awqbench("run", changed, "--out", run).returncode == 0
    touched = {name for name, stamp in stamps(run).items() if before.get(name) != stamp}
    assert {Path(name).parts[2] for name in touched} == {"perplexity"}
    assert {Path(name).parts[1] for name in touched} == set(BACKENDS)


def test_gate_and_compare_answer_from_the_record(awqbench_here: Command, finished: Path, tmp_path: Path) -> None:
    done = awqbench_here("gate", finished, "--json")
    verdict = json.loads(done.stdout)
    assert {rule["verdict"] for rule in verdict["rules"]} == {"pass"}
    assert done.returncode == 0
    strict = tmp_path / "strict.toml"
    strict.write_text('[[gates]]\nmetric = "divergence/*/prefill/kl"\nmargin = 0.000001\n')
    assert awqbench_here("gate", finished, "--policy", strict).returncode == 1
    strict.write_text('[[gates]]\nmetric = "tasks/*/acc"\nmargin = 0.001\n')
    assert awqbench_here("gate", finished, "--policy", strict).returncode == 3
    strict.write_text('[[gates]]\nmetric = "taks/*"\nmargin = 0.1\n')
    missing = awqbench_here("gate", finished, "--policy", strict)
    assert missing.returncode == 2
    assert "taks/*" in missing.stderr
    table = json.loads(awqbench_here("compare", finished, "--baseline", "rtn", "--json").stdout)
    assert {row["baseline"] for row in table["differences"] if row["candidate"] == "awq"} == {"rtn"}
    assert json.loads((finished / "comparison.json").read_text())["reference"] == "reference"


def test_a_baseline_file_gates_the_run_it_came_from(awqbench_here: Command, finished: Path, tmp_path: Path) -> None:
    kept, policy = tmp_path / "baseline.json", tmp_path / "policy.toml"
    policy.write_text('[[gates]]\nmetric = "perplexity/*"\nmargin = 0.01\nunit = "relative"\n')
    assert awqbench_here("baseline", finished, "--out", kept).returncode == 0
    for baseline in (kept, finished):
        done = awqbench_here("gate", finished, "--policy", policy, "--baseline", baseline)
        assert done.returncode == 0, done.stdout + done.stderr
    damaged = tmp_path / "damaged.json"
    damaged.write_text(kept.read_text()[:-40])
    assert awqbench_here("gate", finished, "--policy", policy, "--baseline", damaged).returncode == 2


def test_inspect_a_checkpoint_the_run_made(awqbench_here: Command, finished: Path) -> None:
    found = json.loads(awqbench_here("inspect", finished / "checkpoints" / "awq", "--json").stdout)
    assert found["bits"] == 4
    assert found["group_size"] == 32


def test_audit_of_a_checkpoint_made_elsewhere(
    awqbench: Command, awqbench_here: Command, tiny_llama: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q"
    how = ("--method", "rtn", "--group-size", 32, "--calibration", "pydoc-topics")
    made = awqbench("quantize", tiny_llama, "--out", out, *how)
    assert made.returncode == 0, made.stderr
    again = awqbench_here("quantize", tiny_llama, "--out", out, *how)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    run = tmp_path / "audit"
    audited = awqbench("audit", out, "--reference", tiny_llama, "--preset", "smoke", "--out", run, "--json")
    assert audited.returncode == 0, audited.stderr
    cells = {(cell["backend"], cell["status"]) for cell in json.loads(audited.stdout)["cells"]}
    assert cells == {("reference", "ok"), ("reference-again", "ok"), ("checkpoint", "ok")}
    assert awqbench_here("audit", tiny_llama, "--reference", tiny_llama, "--out", tmp_path / "no").returncode == 2
