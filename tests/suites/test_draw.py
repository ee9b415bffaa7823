"""Which items a budget takes, draw by draw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.suites.base import Context, budget_suffix
from awqbench.suites.fairness_sets import choose
from awqbench.suites.fairness_sets.counterfactual import load
from awqbench.suites.windows import text_windows

ITEMS = load().items


def context(draw: int = 1, share: float = 1.0, **suite: Any) -> Context:
    return Context(cast(Any, None), SimpleNamespace(draw=draw, **suite), cast(Any, None), Path(), share=share)


@given(available=st.integers(1, 300), limit=st.integers(1, 300), draws=st.integers(1, 9))
def test_draws_are_of_one_size_and_repeat_an_item_only_once_all_were_taken(
    available: int, limit: int, draws: int
) -> None:
    taken = [context(draw).chosen(available, limit) for draw in range(1, draws + 1)]
    size = min(limit, available)
    assert all(len(places) == size and sorted(set(places)) == list(places) for places in taken)
    counts = Counter(place for places in taken for place in places)
    assert set(counts) <= set(range(available))
    fewest = min(counts.values()) if len(counts) == available else 0
    assert max(counts.values()) - fewest <= 1


@given(available=st.integers(1, 300), limit=st.none() | st.integers(1, 300), share=st.floats(0.01, 1))
def test_the_noise_floor_measures_a_part_of_the_draw(available: int, limit: int | None, share: float) -> None:
    for draw in (1, 2, 3):
        part, whole = context(draw, share).chosen(available, limit), context(draw).chosen(available, limit)
        assert set(part) <= set(whole)
        assert len(part) == max(1, int(len(whole) * share))
    assert list(context(1, share).chosen(available, limit)) == list(range(len(part)))


def test_nothing_is_chosen_of_nothing() -> None:
    assert list(context().chosen(0, 5)) == []


def test_a_further_draw_is_another_protocol() -> None:
    assert [budget_suffix(*case) for case in [(8, 20, 1), (8, 20, 2), (20, 20, 2), (None, 20, 2)]] == [
        "+8", "+8~2", "", "",
    ]  # fmt: skip


@given(budget=st.integers(10, 2000), seed=st.integers(0, 3), share=st.floats(0.1, 1))
def test_blocks_stay_whole_in_every_draw(budget: int, seed: int, share: float) -> None:
    first, second = (choose(ITEMS, budget, seed, draw=draw) for draw in (1, 2))
    part = choose(ITEMS, budget, seed, draw=2, part=int(share * budget))
    assert second[: len(part)] == part
    assert Counter(i.item_id for i in second).most_common(1)[0][1] == 1
    sizes = Counter(i.block for i in ITEMS)
    assert all(count == sizes[block] for block, count in Counter(i.block for i in second).items())
    if len(first) + len(second) <= len(ITEMS):
        assert not {i.item_id for i in first} & {i.item_id for i in second}
    if budget >= len(ITEMS):
        assert {i.item_id for i in first} == {i.item_id for i in second}


def test_windows_keep_their_place_in_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("abcdefghij" * 5)
    monkeypatch.setattr("awqbench.suites.windows.encode", lambda _, text: list(range(len(text))))
    made = context(draw=2)
    made.__dict__["tokenizer"] = None
    made.worker = cast(Any, SimpleNamespace(description={"max_positions": 100}))
    windows = text_windows(made, str(tmp_path / "text.txt"), 5, 3)
    assert list(windows.places) == [3, 4, 5]
    assert windows.ids[0] == [15, 16, 17, 18, 19]
    assert windows.protocol(5, 3).endswith("@5+3~2")
