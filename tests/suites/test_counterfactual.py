"""The counterfactual set: every group is asked the same, in correct English, and any budget is balanced."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench import resources
from awqbench.errors import UserError
from awqbench.stats import mde
from awqbench.suites.fairness_sets import FairnessItem, choose, load_set, set_hash

ITEMS = load_set("counterfactual").items
PEOPLE = tomllib.loads((resources.content("suites") / "fairness" / "people.toml").read_text(encoding="utf-8"))
FAMILIES = {family["name"]: family for family in PEOPLE["families"]}
VOWEL_SOUND = re.compile(r"^[aeiou]", re.IGNORECASE)


def clusters(items: tuple[FairnessItem, ...] | list[FairnessItem]) -> dict[str, list[FairnessItem]]:
    found: dict[str, list[FairnessItem]] = defaultdict(list)
    for item in items:
        found[item.cluster].append(item)
    return found


def without_person(item: FairnessItem) -> str:
    """The context with the person's phrase, and the name where one is used again, blanked."""
    text = item.context
    phrases = [
        phrase.format(role=role)
        for family in PEOPLE["families"]
        for person in family["people"]
        if {k: v for k, v in person.items() if k != "phrases"} == dict(item.groups)
        for phrase in person["phrases"]
        for role in PEOPLE["roles"]
    ]
    for phrase in sorted(set(phrases), key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(phrase)}\b", "PERSON", text, flags=re.IGNORECASE)
    return text


def test_size() -> None:
    assert len(ITEMS) >= 600
    assert len({item.cluster.split("/")[1] for item in ITEMS}) >= 12
    counts = Counter(pair for item in ITEMS for pair in item.groups.items())
    assert min(counts.values()) >= 60


def test_every_group_is_asked_the_same() -> None:
    for cluster, members in clusters(ITEMS).items():
        family = FAMILIES[members[0].stratum]
        expected = [{k: v for k, v in person.items() if k != "phrases"} for person in family["people"]]
        assert [dict(member.groups) for member in members] == expected, cluster
        assert len({without_person(member) for member in members}) == 1, cluster
        assert "PERSON" in without_person(members[0])
        assert len({(member.choices, member.gold) for member in members}) == 1, cluster


def test_all_families_are_asked_everything() -> None:
    """Each question about every person, in one block; the families' own clusters are parts of it, word by word."""
    everything = load_set("counterfactual-all").items
    people = sum(len(family["people"]) for family in PEOPLE["families"])
    for cluster, members in clusters(everything).items():
        assert len(members) == people
        assert {member.block for member in members} == {cluster}
        assert len({(member.choices, member.gold) for member in members}) == 1
        assert all(member.context[0].isupper() and not set(member.context) & set("{}") for member in members)
    assert len(clusters(everything)) == len(clusters(ITEMS))
    assert min(Counter(pair for item in everything for pair in item.groups.items()).values()) == 300
    asked = {member.choices for member in everything}
    assert asked == {member.choices for member in ITEMS}


def test_a_budget_of_everything_takes_whole_questions() -> None:
    chosen = choose(load_set("counterfactual-all").items, 420, 0)
    assert len(chosen) == 420
    assert set(Counter(item.cluster for item in chosen).values()) == {30}
    assert len({item.stratum for item in chosen}) == 14  # one question of each template


def test_items_differ() -> None:
    assert len({item.item_id for item in ITEMS}) == len(ITEMS)
    assert len({item.context for item in ITEMS}) == len(ITEMS)
    contents = {(without_person(members[0]), members[0].choices) for members in clusters(ITEMS).values()}
    assert len(contents) == len(clusters(ITEMS))


def test_english() -> None:
    for item in ITEMS:
        assert not set(item.context) & set("{}[]<>_")
        assert "  " not in item.context
        assert item.context[0].isupper()
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=\.) ", item.context))
        assert len(set(item.choices)) == len(item.choices)
        for article, word in re.findall(r"\b([Aa]n?) ([A-Za-z-]+)", item.context):
            assert (article.lower() == "an") == bool(VOWEL_SOUND.match(word)), item.context


def test_gold_positions_are_balanced() -> None:
    for size in (2, 3):
        gold = Counter(members[0].gold for members in clusters(ITEMS).values() if len(members[0].choices) == size)
        assert max(gold.values()) - min(gold.values()) <= 0.12 * gold.total()


def test_recall_answers_stand_first_as_often_as_second() -> None:
    first = []
    for members in clusters(ITEMS).values():
        item = members[0]
        if len(item.choices) == 2:
            places = [re.search(rf"\b{choice}\b", item.context) for choice in item.choices]
            starts = [place.start() for place in places if place]
            first.append(starts.index(min(starts)) == item.gold)
    assert sum(first) * 2 == len(first)


@given(budget=st.integers(1, 2000), seed=st.integers(0, 5))
def test_a_budget_is_balanced(budget: int, seed: int) -> None:
    chosen = choose(ITEMS, budget, seed)
    assert len(chosen) <= max(budget, 10)
    for cluster, members in clusters(chosen).items():
        assert len(members) == len(clusters(ITEMS)[cluster])
    blocks = Counter(members[0].stratum for members in clusters(chosen).values())
    for one, other in combinations(FAMILIES, 2):
        assert abs(blocks[one] - blocks[other]) <= 1


@given(small=st.integers(1, 900), more=st.integers(0, 900))
def test_a_smaller_budget_is_a_leading_part(small: int, more: int) -> None:
    part, whole = choose(ITEMS, small, 0), choose(ITEMS, small + more, 0)
    assert whole[: len(part)] == part


def test_the_seed_chooses() -> None:
    assert choose(ITEMS, 100, 0) != choose(ITEMS, 100, 1)
    assert choose(ITEMS, None, 3) != list(ITEMS)
    assert {item.item_id for item in choose(ITEMS, None, 3)} == {item.item_id for item in ITEMS}


def test_hash_follows_the_content(tmp_path: Path) -> None:
    source = resources.content("suites") / "fairness"
    for name in ("people.toml", "templates.toml"):
        (tmp_path / name).write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert set_hash(f"counterfactual:{tmp_path}") == set_hash("counterfactual")
    people = tmp_path / "people.toml"
    people.write_text(people.read_text(encoding="utf-8").replace('"Emily"', '"Emma"'), encoding="utf-8")
    assert set_hash(f"counterfactual:{tmp_path}") != set_hash("counterfactual")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"people\.toml"):
        load_set(f"counterfactual:{tmp_path}")
    (tmp_path / "people.toml").write_text("= no toml")
    with pytest.raises(UserError, match="is not TOML"):
        load_set(f"counterfactual:{tmp_path}")


def test_readme_states_the_counts() -> None:
    """The README's table: items per group and MDE, for every attribute."""
    text = (resources.content("suites") / "fairness" / "README.md").read_text(encoding="utf-8")
    counts: dict[str, set[int]] = defaultdict(set)
    for (attribute, _), n in Counter(pair for item in ITEMS for pair in item.groups.items()).items():
        counts[attribute].add(n)
    for attribute, (n,) in counts.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {attribute}")]
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[3:6] == [str(n), *(f"{100 * mde(n, flips=flips):.1f}" for flips in (0.05, 0.10))]
        groups = {item.groups[attribute] for item in ITEMS if attribute in item.groups}
        assert set(cells[2].split(", ")) == groups
    assert f"{len(ITEMS)} items in {len(clusters(ITEMS))} clusters" in text
