"""Checks one after another, in this process and in one that may die."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from kernelbench_planted import Faithful, RaisesOnWide

from awqbench.errors import BackendUnavailable, UserError
from awqbench.kernelbench import child
from awqbench.kernelbench.attention_checks import attention_items
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.cases import all_cases, large_cases, middle_cases, small_cases, tiny_cases
from awqbench.kernelbench.checks import Case
from awqbench.kernelbench.outcome import Row, summary
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.runner import carry_out, device_lost, items, run_here
from awqbench.kernelbench.supervise import supervise
from awqbench.ops import cuda_layout

CPU = torch.device("cpu")


def test_every_case_fits_the_layout_and_appears_once() -> None:
    cases = [*small_cases(), *middle_cases(), *large_cases(), *tiny_cases()]
    assert all(cuda_layout.fits(case.shape.k, case.shape.group) for case in cases)
    assert all(0 < m <= 1000 for case in cases for m in case.batches)
    listed = all_cases()
    assert len(set(listed)) == len(listed)
    assert {case.shape.group for case in listed} >= {32, 64, 128, 4096}
    assert {m for case in listed for m in case.batches} >= {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 1000}
    assert {case.shape.n for case in listed} >= {8, 24, 72, 151936, 1408, 10944}


def test_only_keeps_some_checks_and_names_the_rest() -> None:
    assert {case.check for case in all_cases(only="one-hot, exact")} == {"one-hot", "exact"}
    assert len(all_cases(quick=True)) < len(all_cases())
    with pytest.raises(UserError, match="unknown check 'speed'"):
        all_cases(only="speed")


def test_small_shapes_of_every_kernel_come_before_large_ones_of_any() -> None:
    first, second = Faithful(), Faithful()
    second.name = "variant"
    work = items([first, second])
    small = len(all_cases(quick=True))
    assert [kernel.name for kernel, _ in work[: 2 * small]] == ["faithful"] * small + ["variant"] * small
    last = list(dict.fromkeys(large_cases()))
    assert [case for kernel, case in work if kernel is first] == all_cases()
    assert [case for kernel, case in work if kernel is second] == all_cases()[: -len(last)]
    assert work.index((first, last[-1])) < work.index((second, all_cases()[small]))
    attention = attention_items(quick=False, tiny=False, only=None)
    assert len(work) == 2 * (len(all_cases()) - len(last)) + len(last) + len(attention)
    tiny = items([first], tiny=True)
    assert [case for _, case in tiny if isinstance(case, Case)] == list(tiny_cases())


def test_what_raises_is_a_row_and_the_rest_goes_on() -> None:
    cases = [Case("accuracy", Shape(64, 64, 32), (17,)), Case("accuracy", Shape(64, 64, 32), (2,))]
    rows = list(run_here([(RaisesOnWide(), case) for case in cases], CPU, Budget(None)))
    assert [row.status for row in rows] == ["error", "pass"]
    assert rows[0].detail == "RuntimeError: too many resources requested for launch"
    assert summary(rows) == {"pass": 1, "fail": 0, "error": 1, "skip": 0, "failing": ["faithful: accuracy"]}
    assert Row(**json.loads(rows[0].json())) == rows[0]
    assert not device_lost(CPU)


def test_a_spent_budget_begins_nothing() -> None:
    clock = iter([0.0, 1.0, 20.0])
    budget = Budget(10, clock=lambda: next(clock))
    work = [(Faithful(), Case("empty", Shape(64, 64, 32), (1,)))] * 5
    assert len(list(run_here(work, CPU, budget))) == 1


def test_a_refused_problem_is_skipped() -> None:
    class Picky(Faithful):
        def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
            return f"{m} rows" if m > 2 else None

    assert carry_out(Picky(), Case("accuracy", Shape(64, 64, 32), (1, 3)), CPU).status == "pass"
    row = carry_out(Picky(), Case("accuracy", Shape(64, 64, 32), (3,)), CPU)
    assert (row.status, row.detail) == ("skip", "3 rows")


def test_the_child_reports_and_can_begin_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    assert child.main(["--device", "cpu", "--quick", "--only", "round-trip", "--skip", "3"]) == 0
    begin, row = map(json.loads, capsys.readouterr().out.splitlines())
    assert (begin["begin"], begin["of"], begin["check"]) == (3, 4, "round-trip")
    assert row["row"]["status"] == "pass"


SCRIPT = """
    import json, sys, time
    skip = int(sys.argv[sys.argv.index("--skip") + 1])
    def say(message): print(json.dumps(message), flush=True)
    for i in range(skip, 4):
        say({"begin": i, "of": 4, "kernel": "k", "check": "c", "case": str(i)})
        FAULT
        say({"row": dict(kernel="k", check="c", case=str(i), status="pass", detail="", seconds=0.0)})
"""


def supervised(tmp_path: Path, fault: str, budget: float | None = None) -> list[Row]:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("FAULT", fault))
    return list(supervise([], Budget(budget), [sys.executable, str(script)], patience=2.0))


def statuses(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.case, row.status) for row in rows]


def test_a_child_that_dies_costs_one_check(tmp_path: Path) -> None:
    rows = supervised(tmp_path, "if i == 1: sys.exit(7)")
    assert statuses(rows) == [("0", "pass"), ("1", "error"), ("2", "pass"), ("3", "pass")]
    assert "status 7" in rows[1].detail


def test_a_child_that_hangs_costs_one_check(tmp_path: Path) -> None:
    rows = supervised(tmp_path, "if i == 3: time.sleep(60)")
    assert statuses(rows) == [("0", "pass"), ("1", "pass"), ("2", "pass"), ("3", "error")]
    assert "no answer" in rows[3].detail


def test_a_lost_context_goes_on_in_a_new_process(tmp_path: Path) -> None:
    fault = (
        'if i == 2: say({"row": dict(kernel="k", check="c", case="2", status="error", detail="illegal address",'
        " seconds=0.0)}); sys.exit(75)"
    )
    assert statuses(supervised(tmp_path, fault)) == [("0", "pass"), ("1", "pass"), ("2", "error"), ("3", "pass")]


def test_a_child_that_never_begins_is_told(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(BackendUnavailable, match="did not start: exit status 3"):
        list(supervise([], Budget(None), [sys.executable, str(script)]))


def test_a_crash_after_which_none_begins_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after one that took the GPU with it: what was found until then is the result."""
    begun_once = SCRIPT.replace("    for i in", "    if skip: sys.exit(3)\n    for i in")
    monkeypatch.setitem(globals(), "SCRIPT", begun_once)
    rows = supervised(tmp_path, "if i == 1: sys.exit(7)")
    assert statuses(rows) == [("0", "pass"), ("1", "error"), ("a new one after a crash", "error")]
    assert "it did not start: exit status 3" in rows[2].detail


def test_the_end_of_the_budget_ends_the_child(tmp_path: Path) -> None:
    rows = supervised(tmp_path, "if i == 1: time.sleep(60)", budget=1.0)
    assert statuses(rows) == [("0", "pass")]
