"""Only what fails twice is a failure: a second measurement, its fresh items, and what that does to false alarms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.errors import ExitCode
from awqbench.gate import exit_code, judge
from awqbench.printing import print_verdict
from awqbench.record.schema import CellResult, Metric, Verdict
from awqbench.report import select
from awqbench.spec import GateSpec
from awqbench.stats.discordant import DiscordantBounds
from awqbench.suites.base import item_table

SHARE = {"unit": "share", "higher_is_better": True, "pairing": "difference"}
RATE = {"unit": "tokens/s", "higher_is_better": True, "pairing": "ratio-of-medians"}
SIZE = {"unit": "bytes", "higher_is_better": False, "pairing": "none"}


def cell(backend: str, metric: str, scores: Any, kind: dict[str, Any] = SHARE, first: int = 0, **columns: Any) -> Cell:
    rows = [{"metric": metric, "item_id": f"i{first + i}", "score": s, **{k: v[i] for k, v in columns.items()}}
            for i, s in enumerate(scores)]  # fmt: skip
    made = Metric(id=metric, value=float(np.median(scores)), n=len(rows), protocol="p", **kind)
    result = CellResult(
        backend=backend, suite="s", kind="tasks", key="k", status="ok", metrics=[made],
        role="reference" if backend == "reference" else "candidate",
    )  # fmt: skip
    return Cell(result, item_table([] if kind is SIZE else rows))


def accuracy(lost: int, n: int = 400, metric: str = "tasks/a+400/acc", **columns: Any) -> list[Cell]:
    after = np.ones(n)
    after[:lost] = 0
    return [cell(name, metric, x, **columns) for name, x in (("reference", np.ones(n)), ("awq", after))]


def decide(cells: list[Cell], again: list[Cell] | None, *gates: GateSpec) -> Verdict:
    comparison = compare_tables(cells, "reference", None)
    return judge(gates, cells, comparison, "reference", policy_hash="h", again=again)


GATE = GateSpec(metric="tasks/*", margin=0.03)


def test_what_fails_on_new_items_too_is_confirmed() -> None:
    found = decide(accuracy(40), accuracy(30, metric="tasks/a+400~2/acc", first=400), GATE)
    (rule,) = found.rules
    assert (found.overall, rule.confirmation.outcome, rule.confirmation.fresh) == ("fail", "confirmed", 400)
    assert (rule.estimate, rule.confirmation.estimate) == (0.1, 0.075)
    assert rule.confirmation.p_holm == rule.confirmation.p_worse < 0.05
    assert "measured again on 400 new items: confirmed (loss 7.5 percentage points, Holm p" in rule.reason


@pytest.mark.parametrize("name", ["tasks/a+400", "tasks/a@8+400of900", "tasks/a@8+400of500of900"])
def test_a_second_draw_is_held_against_the_first_whatever_its_budget_is_called(name: str) -> None:
    again = accuracy(30, metric=f"{name}~2/acc", first=400)
    (rule,) = decide(accuracy(40, metric=f"{name}/acc"), again, GATE).rules
    assert (rule.confirmation.outcome, rule.confirmation.fresh) == ("confirmed", 400)


@pytest.mark.parametrize(("counted", "code"), [("inconclusive", 3), ("pass", 0), ("fail", 1)])
def test_what_fails_once_is_not_confirmed_and_the_policy_says_what_that_counts(counted: Any, code: int) -> None:
    gate = GATE.model_copy(update={"on_inconclusive": counted})
    found = decide(accuracy(40), accuracy(0, metric="tasks/a+400~2/acc", first=400), gate)
    assert exit_code(found) == code
    assert found.rules[0].confirmation.outcome == "not confirmed"
    assert "measured again on 400 new items: not confirmed (loss 0 percentage points" in found.rules[0].reason


def test_the_same_items_confirm_the_engine_alone_and_the_verdict_says_so() -> None:
    (rule,) = decide(accuracy(40), accuracy(40), GATE).rules
    assert (rule.verdict, rule.confirmation.fresh) == ("fail", 0)
    assert "on the same 400 items, for there are no others: that the engine gives the same answer twice" in rule.reason
    partly = decide(accuracy(40), accuracy(40, metric="tasks/a+400~2/acc", first=250), GATE).rules[0]
    assert partly.confirmation.fresh == 250
    assert "measured again on 400 items, 250 of them new" in partly.reason


def test_a_failure_that_could_not_be_measured_again_stands() -> None:
    lost = [Cell(c.result.model_copy(update={"status": "failed", "metrics": []}), item_table([])) for c in accuracy(0)]
    for again in ([], lost):
        (rule,) = decide(accuracy(40), again, GATE).rules
        assert (rule.verdict, rule.confirmation.outcome) == ("fail", "unmeasured")
        assert "so the failure stands" in rule.reason


def test_passes_and_open_questions_are_left_alone() -> None:
    for lost, verdict in ((0, "pass"), (12, "inconclusive")):
        (rule,) = decide(accuracy(lost), accuracy(399), GATE).rules
        assert (rule.verdict, rule.confirmation) == (verdict, None)
    counted = GATE.model_copy(update={"on_inconclusive": "fail"})
    (rule,) = decide(accuracy(12), accuracy(0), counted).rules
    assert (rule.verdict, rule.confirmation) == ("fail", None)  # nothing was shown that could be confirmed


def test_groups_candidates_and_single_figures_are_found_again() -> None:
    names = np.array(list("ab"))[np.arange(400) % 2]
    lost = np.where(names == "a", np.arange(400) % 3 > 0, 1.0)
    cells = [
        *(cell(b, "tasks/a/acc", x, group_g=names) for b, x in (("reference", np.ones(400)), ("awq", lost))),
        cell("rtn", "tasks/a/acc", np.ones(400), group_g=names),
    ]
    gate = GateSpec(metric="tasks/*", margin=0.05, attribute="g", candidates=["awq", "rtn"])
    rules = {(r.candidate, r.group): r for r in decide(cells, cells[:2], gate).rules}
    assert rules["awq", "a"].confirmation.outcome == "confirmed"
    assert rules["rtn", "a"].confirmation is None
    for kind, before, after in ((SIZE, [100], [130]), (RATE, np.linspace(90, 100, 20), np.linspace(60, 66, 20))):
        pair = [cell("reference", "x", before, kind), cell("awq", "x", after, kind)]
        (rule,) = decide(pair, pair, GateSpec(metric="x", margin=0.1, unit="relative")).rules
        assert rule.confirmation.outcome == "confirmed"
        assert rule.confirmation.fresh == (None if kind is SIZE else 20)


def test_a_single_figure_that_is_not_confirmed_is_open_and_not_called_too_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = ([cell("reference", "x", [100], SIZE), cell("awq", "x", [size], SIZE)] for size in (130, 100))
    found = decide(first, second, GateSpec(metric="x", margin=0.1, unit="relative"))
    assert (found.overall, select.outcome(found.rules[0])) == ("inconclusive", "inconclusive")
    print_verdict(found)
    said = capsys.readouterr().out
    assert "inconclusive awq: x is 30 % worse than for reference" in " ".join(said.split())
    assert "too few items" not in said


def test_exit_codes() -> None:
    confirmed = decide(accuracy(40), accuracy(40, first=400), GATE)
    assert exit_code(confirmed) == ExitCode.GATE_FAILED
    assert confirmed.candidates == {"awq": "fail"}


def test_false_alarms_are_squared_on_fresh_items() -> None:
    """The true loss is the margin: each measurement alone fails in about 5 % (here 10 %, to need fewer draws)."""
    rng, runs, n = np.random.default_rng(7), 300, 200
    gate = GateSpec(metric="tasks/*", margin=0.05, alpha=0.1)
    nothing = compare_tables([], "reference", None)
    once = twice = 0
    for _ in range(runs):
        lost = rng.binomial(n, 0.05, 2)
        if DiscordantBounds(lost[0], 0, n).p_greater(0.05) >= 0.1:
            continue  # passed or undecided at once: nothing to confirm
        first, second = (
            [cell("reference", "tasks/a", np.ones(n), first=k), cell("awq", "tasks/a", np.arange(n) >= count, first=k)]
            for k, count in zip((0, n), lost, strict=True)
        )
        assert judge([gate], first, nothing, "reference", policy_hash="h").overall == "fail"
        once += 1
        twice += judge([gate], first, nothing, "reference", policy_hash="h", again=second).overall == "fail"
    assert 10 <= once <= 45  # 0.1 of 300, or less where counts are few
    assert twice <= 8  # 0.01 of 300
