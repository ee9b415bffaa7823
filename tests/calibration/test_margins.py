"""What a run's items can decide where nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.compare.cell import Cell
from awqbench.record.schema import CellResult, Metric
from awqbench.spec import GateSpec
from awqbench.suites.base import item_table

METRIC = "fairness/x/accuracy"
PROGRAMS = Path(__file__).resolve().parents[2] / "suites" / "calibration"


@pytest.fixture
def margins(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROGRAMS)
    import margins

    yield margins
    del sys.modules["margins"]


def answers(role: str, scores: list[list[float]]) -> Cell:
    """Questions asked about two people."""
    rows = [
        {"metric": METRIC, "item_id": f"{q} {who}", "cluster": f"question {q}", "score": score, "group_who": who}
        for q, pair in enumerate(scores)
        for who, score in zip("ab", pair, strict=True)
    ]
    metric = Metric(id=METRIC, value=0.5, unit="share", n=len(rows), protocol="", higher_is_better=True)
    facts = {"backend": role, "suite": "fairness", "kind": "fairness", "role": role, "key": "", "status": "ok"}
    return Cell(CellResult(**facts, metrics=[metric]), item_table(rows))


def uppers(margins: Any, after: list[list[float]], *, clusters: int, **rule: Any) -> np.ndarray:
    cells = [answers("reference", [[1, 1]] * len(after)), answers("candidate", after)]
    gate = GateSpec(metric=METRIC, margin=0.1, **rule)
    (found,) = margins.judged([gate], cells, "reference")
    return found.uppers(clusters, 200, np.random.default_rng(0))


def test_items_that_never_flip_are_bounded_by_their_number_alone(margins: Any) -> None:
    found = uppers(margins, [[1, 1]] * 20, clusters=40)
    assert found == pytest.approx(np.full(200, found[0]))
    tango = 1.6449**2 / (80 + 1.6449**2)  # his bound of 0 of 80; the design effect may widen it
    assert found[0] >= tango
    assert found[0] < 0.05
    assert (uppers(margins, [[1, 1]] * 20, clusters=20) > found).all()


def test_flips_widen_and_a_loss_of_the_run_is_not_a_loss_here(margins: Any) -> None:
    lost = [[0, 0]] * 10 + [[1, 1]] * 30
    found = uppers(margins, lost, clusters=400)
    assert 0.02 < np.median(found) < 0.06  # the run's own loss is 25 points; here signs are drawn, and it is none


def test_a_rule_on_groups_passes_where_all_of_them_do(margins: Any) -> None:
    alike = uppers(margins, [[0, 0]] * 10 + [[1, 1]] * 30, clusters=100, attribute="who", min_group=2)
    apart = uppers(margins, [[0, 1]] * 10 + [[1, 1]] * 30, clusters=100, attribute="who", min_group=2)
    assert (alike < 0.06).all()  # what hits both groups alike cancels
    assert np.median(apart) > 0.08
