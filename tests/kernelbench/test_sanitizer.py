"""What compute-sanitizer's output is taken to mean. The texts are of the tool's form, made up for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.sanitizer import FOUND, TOOLS, judge, sanitize

ROW = '{"row": {"kernel": "ours", "status": "pass"}}\n'


@pytest.mark.parametrize(
    ("code", "output", "status", "detail"),
    [
        (0, f"========= COMPUTE-SANITIZER\n{ROW}{ROW}========= ERROR SUMMARY: 0 errors", "pass", "2 checks watched"),
        (
            FOUND,
            f"========= COMPUTE-SANITIZER\n========= Invalid __global__ write\n{ROW}========= ERROR SUMMARY: 3 errors",
            "fail",
            "Invalid __global__ write; ERROR SUMMARY: 3 errors",
        ),
        (0, f"{ROW}========= RACECHECK SUMMARY: 2 hazards displayed", "fail", "2 hazards"),
        (0, f'{ROW}{{"row": {{"status": "error"}}}}\n========= ERROR SUMMARY: 0 errors', "fail", "1 of them failed"),
        (1, "========= Error: Device not supported", "skip", "does not support this device"),
        (1, "Traceback\nImportError: torch", "error", "exit status 1: ImportError: torch"),
        (0, "", "error", "no output"),
    ],
)
def test_judging(code: int, output: str, status: str, detail: str) -> None:
    found, said = judge(code, output)
    assert found == status
    assert detail in said


def test_without_the_program_every_tool_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awqbench.kernelbench.sanitizer.find", lambda: None)
    rows = list(sanitize(Budget(None)))
    assert [row.check for row in rows] == list(TOOLS)
    assert {row.status for row in rows} == {"skip"}


def test_the_program_is_run_on_the_small_checks(tmp_path: Path) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        '#!/bin/sh\necho "$*" >>"$(dirname "$0")/calls"\n'
        f"echo '{ROW.strip()}'\necho '========= ERROR SUMMARY: 0 errors'\n"
    )
    program.chmod(0o755)
    rows = list(sanitize(Budget(None), str(program), ("memcheck",)))
    assert [(row.check, row.status) for row in rows] == [("memcheck", "pass")]
    called = (tmp_path / "calls").read_text()
    assert "--tool memcheck --error-exitcode 23" in called
    assert "--kernel-name kernel_substring=awqbench" in called
    assert "awqbench.kernelbench.child --tiny" in called


@pytest.mark.parametrize(
    ("said", "status", "detail"),
    [("", "skip", "so far: 1 checks watched"), ("========= Race reported", "fail", "so far: Race reported")],
)
def test_what_was_found_before_the_time_ended_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: str, detail: str
) -> None:
    monkeypatch.setattr("awqbench.kernelbench.sanitizer.LIMIT", 1.0)
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        f"#!/bin/sh\necho '========= COMPUTE-SANITIZER'\necho '{ROW.strip()}'\necho '{said}'\nexec sleep 30\n"
    )
    program.chmod(0o755)
    (row,) = sanitize(Budget(None), str(program), ("racecheck",))
    assert (row.status, detail in row.detail) == (status, True), row


def test_too_little_time_is_not_begun(tmp_path: Path) -> None:
    rows = list(sanitize(Budget(5), str(tmp_path / "compute-sanitizer"), ("memcheck",)))
    assert [(row.status, row.detail) for row in rows] == [("skip", "no time left")]
