"""Which items a budget takes, draw by draw."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.suites.base import Context, budget_suffix, spread_out
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
def test_the_noise_floor_measures_the_leading_part_of_the_draw(available: int, limit: int | None, share: float) -> None:
    for draw, spread in product((1, 2, 3), (False, True)):
        part = context(draw, share, spread=spread).chosen(available, limit)
        whole = context(draw, spread=spread).chosen(available, limit)
        assert list(part) == list(whole)[: max(1, int(len(whole) * share))]
    part = context(1, share).chosen(available, limit)
    assert list(context(1, share).chosen(available, limit)) == list(range(len(part)))


@given(available=st.integers(1, 300), limit=st.integers(1, 300), draws=st.integers(1, 9))
def test_items_from_all_along_stand_one_in_each_part(available: int, limit: int, draws: int) -> None:
    size = min(limit, available)
    taken = [context(draw, spread=True).chosen(available, limit) for draw in range(1, draws + 1)]
    ends = [part * available // size for part in range(size + 1)]
    for places in taken:
        assert all(begin <= at < end for begin, end, at in zip(ends, ends[1:], places, strict=False))
        assert len(places) == size
    shortest = available // size
    repeated = sum(count - 1 for count in Counter(place for places in taken for place in places).values())
    assert (repeated == 0) == (draws <= shortest or size == available == draws == 1)


@given(available=st.integers(1, 300), limit=st.integers(1, 300))
def test_draws_from_all_along_take_everything_before_they_repeat(available: int, limit: int) -> None:
    """The longest part has this many items."""
    size = min(limit, available)
    longest = -(-available // size)
    taken = {place for draw in range(1, longest + 1) for place in spread_out(available, size, draw)}
    assert taken == set(range(available))


def test_nothing_is_chosen_of_nothing() -> None:
    assert list(context().chosen(0, 5)) == []
    assert list(context(spread=True).chosen(0, 5)) == []


def test_a_further_draw_is_another_protocol() -> None:
    assert [budget_suffix(*case) for case in [(8, 20, 1), (8, 20, 2), (20, 20, 2), (None, 20, 2)]] == [
        "+8", "+8~2", "", "",
    ]  # fmt: skip
    assert [budget_suffix(8, 20, 1, True), budget_suffix(8, 20, 2, True), budget_suffix(20, 20, 1, True)] == [
        "+8of20", "+8of20~2", "",
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


@pytest.mark.parametrize(
    ("spread", "places", "named", "first"),
    [(False, [3, 4, 5], "@5+3~2", "@5+2~2"), (True, [2, 5, 9], "@5+3of10~2", "@5+2of3of10~2")],
)
def test_windows_keep_their_place_in_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: bool, places: list[int], named: str, first: str
) -> None:
    (tmp_path / "text.txt").write_text("abcdefghij" * 5)
    monkeypatch.setattr("awqbench.suites.windows.encode", lambda _, text: list(range(len(text))))
    made = context(draw=2, spread=spread)
    made.__dict__["tokenizer"] = None
    made.worker = cast(Any, SimpleNamespace(description={"max_positions": 100}))
    windows = text_windows(made, str(tmp_path / "text.txt"), 5, 3)
    assert list(windows.places) == places
    assert windows.ids[0] == list(range(5 * places[0], 5 * places[0] + 5))
    assert windows.protocol(5, 3).endswith(named)
    assert windows.protocol(5, 3, 2).endswith(first)
    assert windows.protocol(5, 3, 3) == windows.protocol(5, 3)
    assert windows.protocol(5, None).endswith("@5")
