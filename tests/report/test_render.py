"""From a run directory to its four outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.record.files import write_model
from awqbench.record.reader import Run
from awqbench.record.schema import Manifest
from awqbench.report import render

NAMES = ["report.html", "report.md", "junit.xml", "eval_results.yaml"]


def test_the_same_record_gives_the_same_bytes_and_stays_as_it_is(run_dir: Path, rendered: dict[str, str]) -> None:
    record = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.*") if path.name not in NAMES}
    paths = render(run_dir)
    assert [path.name for path in paths] == NAMES
    assert {path.name: path.read_text(encoding="utf-8") for path in paths} == rendered
    assert {path: path.stat().st_mtime_ns for path in record} == record
    assert not list(run_dir.glob(".report*"))


def test_a_run_that_has_only_begun_renders(tmp_path: Path, run: Run) -> None:
    write_model(tmp_path / "manifest.json", run.manifest)
    for path in render(tmp_path):
        assert path.read_text(encoding="utf-8")
    assert "No candidate was measured" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_an_unfinished_run_shows_no_verdict_on_earlier_cells(tmp_path: Path, run: Run) -> None:
    write_model(tmp_path / "manifest.json", run.manifest.model_copy(update={"finished": None}))
    assert run.comparison is not None
    assert run.verdict is not None
    write_model(tmp_path / "comparison.json", run.comparison)
    write_model(tmp_path / "verdict.json", run.verdict)
    render(tmp_path)
    assert "No candidate was measured" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_bare_manifest_renders(tmp_path: Path) -> None:
    bare = Manifest(awqbench_version="0", created="yesterday", spec={}, spec_hash="s", policy_hash="p", model={})
    write_model(tmp_path / "manifest.json", bare)
    assert "Unnamed model" in render(tmp_path)[0].read_text(encoding="utf-8")


def test_no_run_directory_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        render(tmp_path)
    assert not list(tmp_path.iterdir())
