"""Floors, turns, copies, the plan of a session, and budgets."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.kernelbench import floors
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.plan import DEFAULT_BATCHES, KEY_BATCHES, plan
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.schedule import copies, launches, turns
from awqbench.kernelbench.shapes import MODELS, fitting_groups, layer_name, parse_shapes


def test_floors_by_hand() -> None:
    shape = Shape(4096, 4096, 128)  # 16,777,216 weights: 8 MiB of codes, 131,072 groups of 2.5 bytes
    assert floors.packed_bytes(shape, 1) == 8388608 + 327680 + 2 * 8192
    assert floors.dense_bytes(shape, 1) == 33554432 + 2 * 8192
    assert floors.operations(shape, 3) == 6 * 16777216
    assert floors.microseconds(3e6, 3e12) == pytest.approx(1)
    # kernels.md: 2.9 us for this layer at 3.0 TB/s
    assert floors.microseconds(floors.packed_bytes(shape, 1), 3e12) == pytest.approx(2.91, abs=0.01)
    assert floors.memory_share(shape, 1, 5.82, 3e12) == pytest.approx(0.5, abs=0.001)


@given(st.integers(1, 4096), st.integers(1, 64), st.sampled_from([32, 64, 128]), st.integers(1, 512))
def test_four_bits_are_never_more_than_sixteen(n: int, groups: int, group: int, m: int) -> None:
    shape = Shape(n, groups * group, group)
    assert floors.packed_bytes(shape, m) < floors.dense_bytes(shape, m)
    assert floors.packed_bytes(Shape(n, shape.k, shape.k), m) <= floors.packed_bytes(shape, m)
    assert floors.packed_bytes(shape, m) < floors.packed_bytes(shape, m + 1)


def test_two_contenders_take_turns_as_abba() -> None:
    assert "".join(turns("AB", 4)) == "ABBAABBA"
    assert "".join(turns("ABC", 3)) == "ABCCBAABC"


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=8), st.integers(1, 6))
def test_everyone_has_as_many_turns_at_the_same_mean_time(contenders: list[int], runs: int) -> None:
    order = list(turns(contenders, runs))
    assert Counter(order) == dict.fromkeys(contenders, runs)
    if runs % 2 == 0:  # a linear drift then costs all the same
        means = [sum(i for i, each in enumerate(order) if each == one) / runs for one in contenders]
        assert max(means) - min(means) < 1e-9


@given(st.integers(1, 10**9), st.integers(1, 10**8))
def test_copies_overflow_the_cache(size: int, cache: int) -> None:
    count = copies(size, cache)
    assert 2 <= count <= 256
    assert count == 256 or count * size >= 3 * cache
    assert launches(count) % count == 0
    assert launches(count) >= 50
    assert launches(count) - count < 50


@given(
    st.lists(st.sampled_from([Shape(8, 32, 32), Shape(16, 32, 32), Shape(8, 64, 32)]), min_size=1, unique=True),
    st.lists(st.sampled_from([*DEFAULT_BATCHES, 3, 77]), min_size=1, unique=True),
    st.lists(st.sampled_from(["fp16", "bf16"]), min_size=1, unique=True),
    st.lists(st.sampled_from(["back-to-back", "isolated"]), min_size=1, unique=True),
)
def test_a_plan_holds_every_combination_once(
    shapes: list[Shape], batches: list[int], dtypes: list[str], modes: list[str]
) -> None:
    units = plan(shapes, batches, dtypes, modes)
    listed = Counter((unit.shape, m, unit.dtype, unit.mode) for unit in units for m in unit.batches)
    assert set(listed.values()) == {1}
    assert len(listed) == len(shapes) * len(batches) * len(dtypes) * len(modes)
    assert (units[0].shape, units[0].dtype, units[0].mode) == (shapes[0], dtypes[0], modes[0])


def test_key_batch_sizes_of_all_layers_come_before_anything_else() -> None:
    shapes = parse_shapes("llama3-8b", 128)
    units = plan(shapes, DEFAULT_BATCHES, ("fp16", "bf16"), ("back-to-back", "isolated"))
    assert [unit.batches for unit in units[:4]] == [KEY_BATCHES] * 4
    firsts = [(unit.dtype, unit.mode, unit.batches[0] in KEY_BATCHES) for unit in units]
    order = [each for each, _ in pairwise([*firsts, ("", "", False)])]
    assert list(dict.fromkeys(order))[:4] == [
        ("fp16", "back-to-back", True), ("fp16", "isolated", True), ("bf16", "back-to-back", True),
        ("fp16", "back-to-back", False),
    ]  # fmt: skip


def test_shapes_by_name_and_size() -> None:
    assert parse_shapes("llama3-8b, 24x96", 32)[-1] == Shape(24, 96, 32)
    assert parse_shapes("24x96", 0) == [Shape(24, 96, 96)]
    assert parse_shapes("24x96,24x96", 32) == [Shape(24, 96, 32)]
    assert layer_name(Shape(28672, 4096, 128)) == "llama3-8b gate_up"
    assert layer_name(Shape(24, 96, 32)) == "24x96"
    assert len(parse_shapes(",".join(MODELS), 128)) == 11  # 4096 x 4096 is in two models


@pytest.mark.parametrize(
    ("text", "group", "message"),
    [
        ("llama", 128, "unknown shape 'llama'"),
        ("0x64", 32, "unknown shape '0x64'"),
        ("8x96", 64, "8x96 does not divide"),
    ],
)
def test_wrong_shapes_are_refused(text: str, group: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_shapes(text, group)


def test_groups_that_fit() -> None:
    assert fitting_groups(4096) == [32, 64, 128, 4096]
    assert fitting_groups(1056) == [32, 1056]


def test_a_budget_ends() -> None:
    now = 100.0
    budget = Budget(10, clock=lambda: now)
    assert (budget.left(), budget.spent()) == (10, False)
    now = 109.0
    assert budget.left() == 1
    now = 200.0
    assert (budget.left(), budget.spent()) == (0, True)
    assert Budget(None, clock=lambda: now).left() == float("inf")
