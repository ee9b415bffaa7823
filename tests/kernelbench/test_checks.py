"""The protocol passes what is right, and every planted fault is caught by the check that is there for it."""

from __future__ import annotations

import re

import pytest
import torch
from kernelbench_planted import (
    FAULTS,
    Behind,
    Faithful,
    OnlyEightRows,
    UnwrittenTail,
)  # the module beside this file, by way of conftest.py

from awqbench.kernelbench.cases import small_cases
from awqbench.kernelbench.checks import CHECKS, Case
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.ours import our_kernels
from awqbench.kernelbench.outcome import Row
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.runner import carry_out

CPU = torch.device("cpu")
# A tail in n and k, two groups to a tile, 4096 results in one case, and each check at least once.
CASES = (
    Case("round-trip", Shape(72, 96, 32), (1,)),
    Case("one-hot", Shape(72, 96, 32), (16,)),
    Case("exact", Shape(72, 96, 32), (1, 9, 64)),
    Case("accuracy", Shape(72, 96, 32), (1, 8, 17, 64), bias=True),
    Case("accuracy", Shape(136, 352, 32), (64,), "bf16"),
    Case("repeat", Shape(72, 96, 32), (3,)),
    Case("chain", Shape(96, 96, 32), (3,)),
    Case("taken-in", Shape(72, 96, 32), (3,)),
    Case("early", Shape(96, 96, 32), (3,)),
    Case("strides", Shape(72, 96, 32), (3,)),
    Case("empty", Shape(72, 96, 32), (2,)),
    Case("graph", Shape(72, 96, 32), (2,)),
    Case("streams", Shape(72, 96, 32), (2,)),
)


def rows_of(kernel: Implementation) -> list[Row]:
    return [carry_out(kernel, case, CPU) for case in CASES]


def test_every_check_is_in_the_list() -> None:
    assert {case.check for case in CASES} == set(CHECKS)
    assert {case.check for case in small_cases()} == set(CHECKS)


def test_a_right_implementation_passes() -> None:
    rows = rows_of(Faithful())
    assert [row for row in rows if row.bad] == []
    assert {row.check for row in rows if row.status == "skip"} == {"graph", "streams", "taken-in", "early"}


def test_the_operators_reference_passes_all_small_cases() -> None:
    (operator,) = our_kernels(CPU)
    rows = [carry_out(operator, case, CPU) for case in small_cases()]
    assert [row.line() for row in rows if row.bad] == []
    assert sum(row.status == "pass" for row in rows) > 30


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught(fault: type[Faithful]) -> None:
    torch.manual_seed(0)
    caught = {row.check for row in rows_of(fault()) if row.bad}
    assert caught >= FAULTS[fault]


def test_a_small_loss_is_caught_by_the_comparison_with_a_matmul() -> None:
    """A third of a thousandth too large: within the absolute bounds, and less exact than rounded weights."""

    class SlightlyOff(Faithful):
        def write(self, y: torch.Tensor, value: torch.Tensor) -> None:
            y.copy_(value * (1 + 3.5e-4))

    row = carry_out(SlightlyOff(), Case("accuracy", Shape(72, 96, 32), (1, 64)), CPU)
    assert row.status == "fail"
    assert row.detail.startswith("M=64")
    assert "of a matmul on the dequantized weights" in row.detail


def test_a_launch_that_does_not_wait_for_the_one_before_breaks_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a synchronization, wrong in a burst."""

    class Eager(Behind):
        def run(self, packed: object, x: torch.Tensor) -> torch.Tensor:
            return super().run(packed, x) if self.last is not None else self.right(packed, x)

        def right(self, packed: object, x: torch.Tensor) -> torch.Tensor:
            self.last = x.clone()
            return Faithful.run(self, packed, x)

    kernel = Eager()
    monkeypatch.setattr("awqbench.kernelbench.checks.wait", lambda device: setattr(kernel, "last", None))
    row = carry_out(kernel, Case("chain", Shape(96, 96, 32), (3,)), CPU)
    assert row.status == "fail"
    assert "a chain of launches differs" in row.detail


def test_findings_say_where() -> None:
    (unwritten,) = [row for row in rows_of(UnwrittenTail()) if row.check == "accuracy" and "bias" in row.case]
    place = re.search(r"worst at y\[0, (\d+)\]", unwritten.detail)
    assert place is not None
    assert int(place[1]) >= 64
    eight = next(row for row in rows_of(OnlyEightRows()) if row.check == "accuracy")
    assert eight.detail.startswith("M=17")
