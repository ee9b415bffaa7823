"""Items sliced by what is known of them: any column, bands of a number, and intersections of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from awqbench.errors import UserError, unknown_choice
from awqbench.record.schema import GROUP_PREFIX

Document = Mapping[str, Any]
Groups = Mapping[str, str]  # attribute -> the item's group; without the attributes that don't apply to it

AND = " & "
# Each group is a row of the comparison: a column with a value of its own for every item says nothing.
MOST_GROUPS = 500
_LONGEST_CLUSTER = 64
_ABSENT = object()


def intersect(groups: Sequence[Groups], attributes: Iterable[str]) -> list[dict[str, str]]:
    """The items' groups with intersections added: attribute "a & b" has the values "x & y".

    An item that has no group in one of an intersection's attributes has none in the intersection. Raises UserError for
    an attribute that no item has, and for fewer than two attributes in one intersection.
    """
    found = [dict(own) for own in groups]
    known = {name for own in groups for name in own}
    for attribute in attributes:
        parts = parts_of(attribute)
        if len(set(parts)) < 2 or len(set(parts)) < len(parts):
            raise UserError(f"intersection {attribute!r} needs two different attributes or more: 'gender & age'")
        for part in parts:
            if part not in known:
                raise unknown_choice(f"attribute in {attribute!r}", part, known)
        for own in found:
            if all(part in own for part in parts):
                own[AND.join(parts)] = AND.join(own[part] for part in parts)
    return found


def slice_tasks(tasks: Mapping[str, Sequence[Document]], slices: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Each task's documents' groups by each slice: a column, "column:N" for N bands of it, or an intersection of these.

    Bands hold like many documents each, cut at quantiles over all documents of a task: of a column of numbers by the
    number, of a text by its characters. Columns of nested tables are named with dots; the prefix of a `group_` column
    may be left out. A task without a column has no such groups. Raises UserError for a column that no task has or that
    holds lists or tables, and for more than `MOST_GROUPS` groups.
    """
    singles = dict.fromkeys(part for slice_ in slices for part in parts_of(slice_))
    crossed = [slice_ for slice_ in slices if len(parts_of(slice_)) > 1]
    _check_known(tasks, singles)
    found = {}
    for name, documents in tasks.items():
        alone: list[dict[str, str]] = [{} for _ in documents]
        for single in singles:
            for own, group in zip(alone, _column(documents, single), strict=True):
                if group is not None:
                    own[single] = group
        there = {attribute for own in alone for attribute in own}
        groups = intersect(alone, [slice_ for slice_ in crossed if there.issuperset(parts_of(slice_))])
        wanted = [AND.join(parts_of(slice_)) for slice_ in slices]
        found[name] = [{attribute: own[attribute] for attribute in wanted if attribute in own} for own in groups]
        for attribute in wanted:
            count = len({own[attribute] for own in found[name] if attribute in own})
            if count > MOST_GROUPS:
                raise UserError(
                    f"slice {attribute!r} parts task {name!r} into {count} groups (allowed: {MOST_GROUPS}); "
                    "bands of a number or a text are asked for as 'column:4'"
                )
    return found


def item_columns(
    tasks: Mapping[str, Sequence[Document]], slices: Sequence[str], cluster: str | None
) -> dict[str, list[dict[str, str]]]:
    """The columns of each task's item rows that its documents have: `group_<attribute>` by slice, and `cluster`.

    Raises UserError as `slice_tasks` does, and for a `cluster` column that no task has.
    """
    groups = slice_tasks(tasks, slices)
    found = {
        name: [{GROUP_PREFIX + attribute: group for attribute, group in own.items()} for own in groups[name]]
        for name in tasks
    }
    if cluster is not None:
        _check_known(tasks, [cluster])
        for name, documents in tasks.items():
            for columns, document in zip(found[name], documents, strict=True):
                if (value := _value(document, cluster)) is not _ABSENT and value is not None:
                    columns["cluster"] = _cluster(value)
    return found


def _cluster(value: Any) -> str:
    """A cluster's name: the value itself, or the hash of a long text."""
    text = str(value)
    return text if len(text) <= _LONGEST_CLUSTER else hashlib.sha256(text.encode()).hexdigest()[:16]


def parts_of(slice_: str) -> list[str]:
    """The attributes of an intersection."""
    return [part.strip() for part in slice_.split("&")]


def _check_known(tasks: Mapping[str, Sequence[Document]], names: Iterable[str]) -> None:
    documents = [document for own in tasks.values() for document in own]
    for name in names:
        column, _ = _banded(name)
        if not any(_value(document, column) is not _ABSENT for document in documents):
            there = {key for document in documents for key in _names(document)}
            raise unknown_choice(f"column of {' or '.join(tasks)}", column, there)


def _names(document: Document, prefix: str = "") -> Iterable[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _value(document: Document, column: str) -> Any:
    for key in (column, GROUP_PREFIX + column):
        if key in document:
            return document[key]
    head, dot, rest = column.partition(".")
    inner = document.get(head) if dot else None
    return _value(inner, rest) if isinstance(inner, Mapping) else _ABSENT


def _banded(name: str) -> tuple[str, int | None]:
    column, colon, bands = name.rpartition(":")
    if not colon:
        return name, None
    if not bands.isdecimal() or int(bands) < 2:
        raise UserError(f"slice {name!r}: after the colon stands the number of bands, two or more: 'length:4'")
    return column, int(bands)


def _column(documents: Sequence[Document], name: str) -> list[str | None]:
    column, bands = _banded(name)
    values = [_value(document, column) for document in documents]
    # What is not a number is no value either: a quantile over it would put all items into one band.
    values = [None if value is _ABSENT or value != value else value for value in values]
    there = [value for value in values if value is not None]
    if any(isinstance(value, list | Mapping) for value in there):
        raise UserError(f"column {column!r} holds lists or tables: it cannot name groups")
    if bands is None:
        return [None if value is None else str(value) for value in values]
    if all(isinstance(value, str) for value in there):
        return quantile_bands([None if value is None else len(value) for value in values], bands, " characters")
    if any(isinstance(value, str) for value in there):
        raise UserError(f"column {column!r} holds texts and numbers: it cannot be cut into bands")
    return quantile_bands(values, bands, "")


def quantile_bands(values: Sequence[float | None], bands: int, unit: str) -> list[str | None]:
    """The quantile band of each value, numbered so that their names sort. Equal values share a band."""
    known = np.asarray([value for value in values if value is not None], np.float64)
    if not len(known):
        return [None] * len(values)
    inner = np.unique(np.quantile(known, np.linspace(0, 1, bands + 1)[1:-1]))
    codes = np.searchsorted(inner, known)
    used = np.unique(codes)
    names = {}
    for number, code in enumerate(used, 1):
        own = known[codes == code]
        ends = f"{own.min():g} to {own.max():g}" if own.min() < own.max() else f"{own.min():g}"
        names[code] = f"{number:0{len(str(len(used)))}} of {len(used)}: {ends}{unit}"
    place = iter(codes)
    return [None if value is None else names[next(place)] for value in values]
