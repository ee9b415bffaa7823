"""The attention checks pass what is right and catch planted faults; the attention bench tells what it timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernelbench_planted import Faithful
from torch import Tensor

from awqbench.kernelbench.attention import Contender, Heads, Ours, Step, contenders, random_step
from awqbench.kernelbench.attention_bench import attention_lines, benchmark_attention, problems
from awqbench.kernelbench.attention_checks import ATTENTION, AttentionCase, attention_items, small_cases, tiny_cases
from awqbench.kernelbench.bench import DeviceLost, Settings
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.cases import all_cases
from awqbench.kernelbench.outcome import Row
from awqbench.kernelbench.results import AttentionTime, Session, load, save
from awqbench.kernelbench.runner import carry_out, items
from awqbench.kernelbench.timers import CpuTimer
from awqbench.ops.attend import reference

CPU = torch.device("cpu")
PLAIN = Heads(8, 2, 24, 2, 37, 48)
ALL = Heads(8, 2, 24, 2, 37, 48, rotary=12, padding=9, window=20, cap=4.0, norms=True)
CASES = [
    AttentionCase(check, sizes, dtype) for check in ATTENTION for sizes in (PLAIN, ALL) for dtype in ("fp16", "bf16")
]
SETTINGS = Settings(cache=100_000, runs=3, replays=5, least_launches=4)


class Faulty(Contender):
    """The kernel with one fault: `change` gets the step and may run what it likes."""

    name = "faulty"

    def __init__(self, change: Callable[[Step], Tensor]) -> None:
        self._change = change

    def run(self, step: Step) -> Tensor:
        return self._change(step)


def rows_of(kernel: Contender) -> list[Row]:
    return [carry_out(kernel, case, CPU) for case in CASES]


def test_the_reference_passes() -> None:
    assert [row.line() for row in rows_of(Ours("attend", overlap=True)) if row.status != "pass"] == []


def test_small_and_tiny_cases_pass() -> None:
    short = [case for case in (*small_cases(), *tiny_cases()) if case.sizes.context < 200]
    rows = [carry_out(Ours("attend", overlap=True), case, CPU) for case in short[::3]]
    assert [row.line() for row in rows if row.status != "pass"] == []
    assert {case.check for case in small_cases()} == set(ATTENTION)


def stores_nothing(step: Step) -> Tensor:
    return step.copy().run()


def stores_twice(step: Step) -> Tensor:
    y = step.run()
    step.keys[:, :, step.sizes.context + 1] = step.keys[:, :, step.sizes.context]
    return y


def leaves_out_a_place(step: Step) -> Tensor:
    return replace(step, sizes=replace(step.sizes, window=step.sizes.window - 1 if step.sizes.window else 37)).run()


def sees_one_place_more(step: Step) -> Tensor:
    keys, values = step.keys.nan_to_num(), step.values.nan_to_num()
    y = replace(step, keys=keys, values=values, length=step.length + 1).run()
    step.run()
    return y


def turns_the_other_way(step: Step) -> Tensor:
    return replace(step, sines=-step.sines).run()


def rounds_to_8_bits(step: Step) -> Tensor:
    y = step.run()
    return y.to(torch.float8_e5m2).to(y.dtype)


def moves(step: Step, calls: list[int] = []) -> Tensor:  # noqa: B006
    y = step.run()
    calls.append(0)
    return y * (1 + len(calls) * 2.0**-10)


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (stores_nothing, {"attention"}),
        (stores_twice, {"attention"}),
        (leaves_out_a_place, {"attention"}),
        (sees_one_place_more, {"attention"}),
        (turns_the_other_way, {"attention"}),
        (rounds_to_8_bits, {"attention"}),
        (moves, {"attention-bits", "attention-steps"}),
    ],
)
def test_a_planted_fault_is_caught(fault: Callable[[Step], Tensor], caught_by: set[str]) -> None:
    assert {row.check for row in rows_of(Faulty(fault)) if row.bad} >= caught_by


def test_they_stand_among_the_other_checks_and_can_be_asked_for_alone() -> None:
    wanted = attention_items(quick=True, tiny=False, only=None)
    found = [case for _, case in items([Faithful()], quick=True) if isinstance(case, AttentionCase)]
    assert found == [case for _, case in wanted]
    (alone,) = {case.check for _, case in items([Faithful()], only="attention-bits")}
    assert alone == "attention-bits"
    assert all_cases(only="attention") == []


def test_all_contenders_that_do_the_whole_of_it_agree() -> None:
    step = random_step(replace(PLAIN, batch=1), torch.float16, CPU, unseen=0.0)
    right = step.copy().run()
    for each in contenders():
        given = step.copy()
        y = each.run(given)
        assert y.shape == right.shape
        if each.whole:
            assert (y - right).norm() <= 5e-3 * right.norm()
            assert (given.keys - step.keys)[:, :, step.sizes.context].any()


def measured(session: Session, without: set[str] | None = None) -> list[list[AttentionTime]]:
    kept: list[list[AttentionTime]] = []
    benchmark_attention(
        session, CPU, CpuTimer(), Budget(None), SETTINGS, "back-to-back", "fp16", without or set(),
        lambda found: kept.append(list(found)),
    )  # fmt: skip
    return kept


def test_times_are_told_saved_and_not_taken_twice(tmp_path: Path) -> None:
    session = Session("1", "CPU", "made up", ceilings={"read": 1e9})
    (found,) = measured(session, {"sdpa alone"})
    assert [(each.contender, each.status) for each in found] == [
        (name, "timed") for name in ("attend", "attend/plain", "torch", "torch-gqa")
    ]
    lines = list(attention_lines(session, found))
    assert lines[0].startswith(
        "attention of tiny (8/2 heads of 64), context 30, batch 1 fp16 back-to-back, floor 15.87 us"
    )
    assert "of floor" in lines[1]
    assert "attend is" in lines[3]
    save(tmp_path / "x.json", session)
    assert load(tmp_path / "x.json").sessions[0].attention == session.attention
    assert measured(session) == []


def test_a_wrong_contender_is_told_and_a_lost_device_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awqbench.kernelbench.attention.attend", lambda *a, **k: reference(*a, **k) * 2)
    session = Session("1", "CPU", "made up")
    (found,) = measured(session, {"torch", "torch-gqa", "sdpa alone"})
    assert {each.status for each in found} == {"wrong"}
    assert "wrong: relative error 1.00e+00" in list(attention_lines(session, found))[1]

    def broken(*_: object, **__: object) -> Tensor:
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr("awqbench.kernelbench.attention.attend", broken)
    monkeypatch.setattr("awqbench.kernelbench.attention_bench.device_lost", lambda device: True)
    session = Session("2", "CPU", "made up")
    with pytest.raises(DeviceLost, match="attend"):
        measured(session)
    (found,) = measured(session, {"attend", "attend/plain"})  # without it, the others' turn comes
    assert {each.contender for each in found} == {"torch", "torch-gqa", "sdpa alone"}
    assert [each.status for each in session.attention] == ["failed", *["timed"] * 3]


def test_the_floor_is_every_key_and_value_once() -> None:
    (_, sizes), *_ = problems()
    assert sizes.bytes == 2 * 2 * 8 * 128 * 129
    assert replace(sizes, window=10).bytes == 2 * 2 * 8 * 128 * 10
