"""Which inputs of a request begin alike, so that their beginning is computed once. Standard library only.

Everything is counted in positions: what a forward pass takes for one more token. Where sharing would cost more than it
saves, inputs stay whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil

Ids = tuple[int, ...]
Group = tuple[Ids, ...]

# A shorter beginning is computed with each input, as is one that saves less than this share of its group's tokens.
LEAST, WORTH = 8, 0.25
# Inputs of one group at most: more would save next to nothing, and finding them takes time in proportion.
MOST = 64
# What a forward pass costs besides its tokens (its weights are read once more), by device, and what a kept token costs
# that is repeated for a row; in positions. Measured with the demo model on one core of an Intel Xeon with AVX-512
# (docs/tasks.md). On a GPU a few hundred tokens take as long as one: unmeasured, by the rates of an H100's data sheet.
PASS, REPEAT = {"cpu": 30.0, "cuda": 250.0}, 0.02
# Tokens that rows may see, of all the tokens that a batch may have: bounds the keys and values of a layer, which are
# repeated while it runs.
SEEN = 4


@dataclass(frozen=True, slots=True)
class Pass:
    """What a forward pass may hold, inputs and tokens with their padding, and what it costs besides these tokens."""

    size: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups of inputs, each of which has its first `prefix` tokens in common. Without sharing `prefix` is 0."""

    prefix: int
    groups: tuple[Group, ...]

    @property
    def inputs(self) -> list[Ids]:
        """All of them, by group."""
        return [ids for group in self.groups for ids in group]

    @property
    def longest(self) -> int:
        """Tokens of its longest input."""
        return max(map(len, self.inputs))

    def pieces(self, each: Pass) -> Iterator[list[tuple[int, Ids]]]:
        """Inputs, each with its group's number, for one pass behind the prefixes; the longest first."""
        waiting = [(number, ids) for number, group in enumerate(self.groups) for ids in group]
        waiting.sort(key=lambda row: -len(row[1]))
        while waiting:
            longest = len(waiting[0][1])
            count = max(1, min(each.size, each.tokens // (longest - self.prefix), SEEN * each.tokens // longest))
            yield waiting[:count]
            waiting = waiting[count:]


def batches(limits: Mapping[Ids, int], each: Pass) -> list[Batch]:
    """Each input in one batch, the batch with the longest input first.

    `limits` has for each input how many of its first tokens may be a prefix, fewer than all. A batch's prefixes, or its
    inputs where nothing is shared, fit one pass; an input that is too long for any goes alone.
    """

    def cost(found: Iterable[Batch]) -> float:
        return sum(_cost(batch, each) for batch in found)

    groups, alone = _groups(limits)
    shared = []
    for batch in _together(groups, each):
        if cost([batch]) < cost(_plain(batch.inputs, each)):
            shared.append(batch)
        else:
            alone += batch.inputs
    plans = [_plain(list(limits), each), [*shared, *_plain(alone, each)]]
    return sorted(min(plans, key=cost), key=lambda batch: -batch.longest)


def _cost(batch: Batch, each: Pass) -> float:
    """Positions of a batch, padding included."""
    if not batch.prefix:
        return each.cost + len(batch.groups) * batch.longest
    total = each.cost + len(batch.groups) * batch.prefix
    for piece in batch.pieces(each):
        longest = len(piece[0][1])
        total += each.cost + len(piece) * (longest - batch.prefix + REPEAT * longest)
    return total


def _groups(limits: Mapping[Ids, int]) -> tuple[list[tuple[int, Group]], list[Ids]]:
    """Groups with their common prefix's length, and the inputs that are in none: the split that saves most tokens.

    In lexicographic order all that begin alike stand together, so groups are runs, and the best split of the first n
    inputs follows from the best splits of fewer (dynamic programming).
    """
    rows = sorted(ids for ids, limit in limits.items() if limit >= LEAST)
    alike = [_common(one, other) for one, other in pairwise(rows)]
    best = [(0, 0, 0)]  # of the first n inputs: tokens saved, where the last group begins, its prefix (0: no group)
    for end in range(1, len(rows) + 1):
        found, prefix, whole = (best[end - 1][0], end - 1, 0), limits[rows[end - 1]], len(rows[end - 1])
        for begin in range(end - 2, max(end - MOST, 0) - 1, -1):
            prefix = min(prefix, alike[begin], limits[rows[begin]])
            if prefix < LEAST:
                break
            whole += len(rows[begin])
            saved = (end - begin - 1) * prefix
            if saved >= WORTH * whole:
                found = max(found, (best[begin][0] + saved, begin, prefix))
        best.append(found)
    groups, alone, end = [], [ids for ids, limit in limits.items() if limit < LEAST], len(rows)
    while end:
        _, begin, prefix = best[end]
        if prefix:
            groups.append((prefix, tuple(rows[begin:end])))
        else:
            alone.append(rows[begin])
        end = begin
    return groups, alone


def _common(one: Ids, other: Ids) -> int:
    """How many first tokens are the same."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _together(groups: Sequence[tuple[int, Group]], each: Pass) -> Iterator[Batch]:
    """Batches of groups: the split of the groups, by their prefixes, that is cheapest but for padding.

    A batch's prefixes are cut to the shortest, so that no padding stands between a prefix and what follows it.
    """
    order = sorted(groups, key=lambda group: -group[0])
    inputs = [0, *accumulate(len(group) for _, group in order)]
    whole = [0, *accumulate(sum(map(len, group)) for _, group in order)]
    best = [(0.0, 0)]  # of the first n groups: their cost, and where the last batch begins
    for end, (prefix, _) in enumerate(order, 1):
        splits = []
        for begin in range(end - 1, max(0, end - max(1, min(each.size, each.tokens // prefix))) - 1, -1):
            rows, length = inputs[end] - inputs[begin], whole[end] - whole[begin]
            computed = prefix * (end - begin) + length - rows * prefix
            cost = computed + REPEAT * length + each.cost * (1 + ceil(rows / each.size))
            splits.append((best[begin][0] + cost, begin))
        best.append(min(splits))
    end = len(order)
    while end:
        begin = best[end][1]
        yield Batch(order[end - 1][0], tuple(group for _, group in order[begin:end]))
        end = begin


def _plain(alone: Sequence[Ids], each: Pass) -> list[Batch]:
    """Inputs of like length."""
    found = []
    waiting = sorted(alone, key=lambda ids: -len(ids))
    while waiting:
        count = max(1, min(each.size, each.tokens // len(waiting[0])))
        found.append(Batch(0, tuple((ids,) for ids in waiting[:count])))
        waiting = waiting[count:]
    return found
