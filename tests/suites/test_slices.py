"""Groups from columns, bands and intersections, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.suites.slices import intersect, item_columns, slice_tasks

DOCS: list[dict[str, Any]] = [
    {"subject": "law", "group_gender": "f", "age": 20, "about": {"region": "north"}, "text": "a", "options": [1]},
    {"subject": "art", "group_gender": "m", "age": 30, "about": {"region": "south"}, "text": "bb", "options": [1]},
    {"subject": "law", "group_gender": None, "age": 40, "about": {"region": "south"}, "text": "ccc", "options": [1]},
    {"subject": "art", "group_gender": "f", "age": 50, "about": {"region": None}, "text": "dddd", "options": [1]},
]


def groups(*slices: str) -> list[dict[str, str]]:
    return slice_tasks({"t": DOCS}, list(slices))["t"]


def test_a_column_names_groups() -> None:
    assert [own["subject"] for own in groups("subject")] == ["law", "art", "law", "art"]


def test_nested_columns_and_the_prefix_of_group_columns() -> None:
    found = groups("about.region", "gender")
    assert [own.get("about.region") for own in found] == ["north", "south", "south", None]
    assert [own.get("gender") for own in found] == ["f", "m", None, "f"]


def test_an_intersection_is_missing_where_a_part_is() -> None:
    found = groups("gender & subject")
    assert found == [
        {"gender & subject": "f & law"},
        {"gender & subject": "m & art"},
        {},
        {"gender & subject": "f & art"},
    ]


def test_bands_of_numbers_and_of_texts() -> None:
    assert [own["age:2"] for own in groups("age:2")] == ["1 of 2: 20 to 30"] * 2 + ["2 of 2: 40 to 50"] * 2
    assert [own["text:4"] for own in groups("text:4")] == [
        "1 of 4: 1 characters", "2 of 4: 2 characters", "3 of 4: 3 characters", "4 of 4: 4 characters",
    ]  # fmt: skip
    assert groups("subject&age:2")[3] == {"subject & age:2": "art & 2 of 2: 40 to 50"}


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=1, max_size=60), st.integers(2, 12))
def test_bands_keep_order_and_ties(values: list[int | None], bands: int) -> None:
    found = slice_tasks({"t": [{"x": value} for value in values]}, [f"x:{bands}"])["t"]
    named = sorted((value, own[f"x:{bands}"]) for value, own in zip(values, found, strict=True) if value is not None)
    assert [name for _, name in named] == sorted(name for _, name in named)
    assert len({name for _, name in named}) <= bands
    of: dict[int, set[str]] = {}
    for value, name in named:
        of.setdefault(value, set()).add(name)
    assert all(len(names) == 1 for names in of.values())
    assert all(f"x:{bands}" not in own for value, own in zip(values, found, strict=True) if value is None)


@pytest.mark.parametrize(
    ("slice_", "message"),
    [
        (
            "subjct",
            r"unknown column of t 'subjct'; did you mean 'subject'\? \(allowed: about.region, age, group_gender",
        ),
        ("gender & colour", "unknown column of t 'colour'"),
        ("options", "holds lists or tables"),
        ("age:one", "number of bands"),
        ("age & age", "two different attributes"),
    ],
)
def test_what_cannot_be_sliced_is_named(slice_: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        groups(slice_)


def test_what_is_no_number_is_no_value() -> None:
    ages = [{"age": age} for age in (20.0, float("nan"), 40.0)]
    first, none, last = slice_tasks({"t": ages}, ["age:2"])["t"]
    assert (first["age:2"], none, last["age:2"]) == ("1 of 2: 20", {}, "2 of 2: 40")


def test_a_column_of_identities_is_refused() -> None:
    with pytest.raises(UserError, match=r"parts task 't' into 501 groups .* 'column:4'"):
        slice_tasks({"t": [{"id": number} for number in range(501)]}, ["id"])


def test_a_task_without_the_column_is_left_whole() -> None:
    found = slice_tasks({"t": DOCS, "u": [{"age": 1}]}, ["subject", "age", "subject & age"])
    assert found["u"] == [{"age": "1"}]
    assert found["t"][0]["subject & age"] == "law & 20"


def test_columns_of_the_rows_and_their_clusters() -> None:
    long = {"passage": "p" * 100, "k": "x"}
    (row, other) = item_columns({"t": [long, {"passage": None, "k": "y"}]}, ["k"], "passage")["t"]
    assert row["group_k"] == "x"
    assert len(row["cluster"]) == 16
    assert other == {"group_k": "y"}
    with pytest.raises(UserError, match="unknown column of t 'passge'; did you mean 'passage'"):
        item_columns({"t": [long]}, [], "passge")


def test_intersections_of_what_fairness_items_carry() -> None:
    items = [{"gender": "f", "age": "old"}, {"gender": "m"}]
    found = intersect(items, ["gender & age"])
    assert found == [{"gender": "f", "age": "old", "gender & age": "f & old"}, {"gender": "m"}]
    with pytest.raises(UserError, match=r"unknown attribute in 'gender & agee' 'agee'; did you mean 'age'"):
        intersect(items, ["gender & agee"])
