"""What the reference's difference to itself does to a verdict: it excuses nothing for good and spoils what it must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.errors import ExitCode
from awqbench.gate import exit_code, judge
from awqbench.record.schema import CellResult, Metric, Verdict
from awqbench.spec import GateSpec
from awqbench.suites.base import item_table

PPL = {"unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}
SHARE = {"unit": "share", "higher_is_better": True, "pairing": "difference"}
SIZE = {"unit": "bytes", "higher_is_better": False, "pairing": "none"}
ROLES = {"reference": "reference", "again": "noise"}
BASE = np.random.default_rng(0).normal(3, 0.4, 100)


def cell(backend: str, scores: Any, kind: dict[str, Any] = PPL, **columns: Any) -> Cell:
    rows = [{"metric": "m", "item_id": f"i{i}", "score": s, **{k: v[i] for k, v in columns.items()}}
            for i, s in enumerate(scores)]  # fmt: skip
    metric = Metric(id="m", value=float(np.mean(scores)), n=len(rows), protocol="p", **kind)
    result = CellResult(
        backend=backend, suite="s", kind="perplexity", role=ROLES.get(backend, "candidate"), key="k", status="ok",
        metrics=[metric],
    )  # fmt: skip
    return Cell(result, item_table([] if kind is SIZE else rows))


def decide(*cells: Cell, **gate: Any) -> Verdict:
    gates = [GateSpec.model_validate({"metric": "*", "unit": "relative", **gate})]
    return judge(gates, cells, compare_tables(cells, "reference", "again"), "reference", policy_hash="h")


def rounding(seed: int, n: int = 100) -> Any:
    """A shift of 1e-6 that a batch of another size brings on every item, nearly alike."""
    return BASE[:n] + 1e-6 + np.random.default_rng(seed).normal(0, 1e-7, n)


@pytest.mark.parametrize("policy", ["inconclusive", "pass", "fail"])
def test_rounding_does_not_fail_a_limit_of_zero_and_does_not_pass_it(policy: Any) -> None:
    cells = cell("reference", BASE), cell("awq", rounding(1))
    assert decide(*cells, margin=0).overall == "fail"
    found = decide(*cells, cell("again", rounding(2, 40)), margin=0, on_inconclusive=policy)
    assert (found.overall, exit_code(found)) == ("inconclusive", ExitCode.INCONCLUSIVE)
    assert "within the noise floor: no larger than the reference's difference to itself" in found.rules[0].reason


def test_the_noise_floor_excuses_no_loss_against_an_earlier_run() -> None:
    """A new candidate is held against the earlier run's reference: that today's lies close says nothing of it."""
    now = cell("reference", BASE), cell("again", rounding(2, 40)), cell("awq", rounding(1))
    floor, gate = compare_tables(now, "reference", "again"), GateSpec(metric="*", unit="relative", margin=0)
    for shift, verdict in ((-0.1, "fail"), (0.1, "pass")):
        earlier = [cell("reference", rounding(3) + shift)]
        found = judge([gate], now, floor, "reference", policy_hash="h", baseline_cells=earlier)
        assert found.overall == verdict


def test_a_real_loss_fails_beside_any_rounding() -> None:
    found = decide(cell("reference", BASE), cell("again", rounding(2)), cell("awq", rounding(1) + 0.001), margin=0)
    assert found.overall == "fail"


def test_a_reference_that_differs_from_itself_by_more_than_the_limit_is_no_yardstick() -> None:
    broken = BASE + 0.3 + np.random.default_rng(3).normal(0, 0.02, 100)
    for after in (broken, BASE):  # damage cannot hide in it, and a pass could be luck
        found = decide(cell("reference", BASE), cell("again", broken), cell("awq", after), margin=0.05)
        assert exit_code(found) == ExitCode.MEASUREMENT_FAILED
        assert found.invalid[0].startswith("again/s: m: reference differs from itself by 3")
        assert "beyond the limit of 5 %" in found.invalid[0]
        assert found.overall == found.candidates["awq"] != "pass"
    harmed = decide(cell("reference", BASE), cell("again", rounding(2)), cell("awq", broken), margin=0.05)
    assert exit_code(harmed) == ExitCode.GATE_FAILED


def test_a_limit_that_the_reference_breaks_spoils_those_alone_that_it_judges() -> None:
    cells = cell("reference", BASE), cell("again", BASE + 0.3), cell("awq", BASE), cell("gptq", BASE)
    gates = [GateSpec(metric="m", unit="relative", margin=m, candidates=[c]) for m, c in ((0.05, "awq"), (0.9, "gptq"))]
    found = judge(gates, cells, compare_tables(cells, "reference", "again"), "reference", policy_hash="h")
    assert (found.candidates, found.overall) == ({"awq": "inconclusive", "gptq": "pass"}, "inconclusive")


def test_groups_are_excused_and_called_unsound_alike() -> None:
    names = np.array(["a", "b"])[np.arange(100) % 2]
    shift = np.where(names == "a", 1e-6, 0)
    before = cell("reference", BASE, group_g=names)
    again = cell("again", rounding(2) + shift, group_g=names)
    found = decide(before, again, cell("awq", rounding(1) + shift, group_g=names), margin=0, attribute="g")
    assert {rule.group: rule.verdict for rule in found.rules} == {"a": "inconclusive", "b": "pass"}
    broken = cell("again", BASE + 3e5 * shift, group_g=names)
    found = decide(before, broken, cell("awq", BASE, group_g=names), margin=0.05, attribute="g")
    assert ["g = a" in line for line in found.invalid] == [True]


def test_single_figures_are_asked_of_the_reference_too() -> None:
    cells = cell("reference", [400], SIZE), cell("again", [500], SIZE), cell("awq", [400], SIZE)
    assert exit_code(decide(*cells, margin=0.1)) == ExitCode.MEASUREMENT_FAILED
    assert exit_code(decide(*cells, margin=0.3)) == ExitCode.DONE


def test_a_reference_that_agrees_with_itself_spoils_nothing() -> None:
    right = np.ones(400)
    noisy = right.copy()
    noisy[:3] = 0
    cells = cell("reference", right, SHARE), cell("again", noisy[:160], SHARE), cell("awq", right, SHARE)
    assert decide(*cells, margin=0.03, unit="absolute").overall == "pass"
