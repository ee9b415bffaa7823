"""The item file of awqbench_commonplace: complete, balanced, without repetition."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from awqbench import resources


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    file = resources.content("suites") / "tasks" / "awqbench_commonplace.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_counts_and_gold_positions(items: list[dict[str, Any]]) -> None:
    assert len(items) >= 160
    gold = Counter(item["gold"] for item in items)
    assert set(gold) == {0, 1, 2, 3}
    assert max(gold.values()) - min(gold.values()) <= 1


def test_any_leading_part_is_balanced(items: list[dict[str, Any]]) -> None:
    """A limit takes leading items: every block of four has each gold position, every block of topics each topic."""
    for low in range(0, len(items) - 3, 4):
        assert {item["gold"] for item in items[low : low + 4]} == {0, 1, 2, 3}
    topics = len({item["cluster"] for item in items})
    for low in range(0, len(items) - topics + 1, topics):
        assert len({item["cluster"] for item in items[low : low + topics]}) == topics


def test_no_duplicates(items: list[dict[str, Any]]) -> None:
    assert len({item["id"] for item in items}) == len(items)
    assert len({item["context"].casefold() for item in items}) == len(items)
    for item in items:
        assert len({choice.casefold() for choice in item["choices"]}) == len(item["choices"]) == 4


def test_text_is_clean(items: list[dict[str, Any]]) -> None:
    for item in items:
        for text in (item["context"], *item["choices"]):
            assert text == text.strip()
            assert text.isascii()
            assert not set(text) & set("{}<>|_")
        assert 3 <= len(item["context"].split()) <= 25
        assert item["context"][0].isupper()
        assert item["context"][-1] not in ".!?"


def test_the_longest_choice_is_no_clue(items: list[dict[str, Any]]) -> None:
    """Taking the longest (or shortest) choice must not beat chance by much."""
    for extreme in (max, min):
        hits = sum(
            len(item["choices"][item["gold"]]) == extreme(map(len, item["choices"]))
            and [len(c) for c in item["choices"]].count(extreme(map(len, item["choices"]))) == 1
            for item in items
        )
        assert hits / len(items) < 0.4
