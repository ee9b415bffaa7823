"""Which inputs of a request begin alike, so that the beginning can be computed once. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

Ids = tuple[int, ...]

# A shorter beginning is computed with each input.
LEAST = 8
# So much of what a group costs without sharing must be saved: below, two passes of few tokens take as long as one.
WORTH = 0.25
# Inputs of one group at most: more would save next to nothing, and finding them takes time in proportion.
MOST = 64
# A batch's beginnings are cut to the shortest, by no more than this share of the longest.
CUT = 0.125


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups of inputs, each of which has its first `prefix` tokens in common. Without sharing `prefix` is 0."""

    prefix: int
    groups: tuple[tuple[Ids, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of its longest input."""
        return max(len(ids) for group in self.groups for ids in group)


def batches(limits: Mapping[Ids, int], size: int, tokens: int) -> list[Batch]:
    """Each input in one batch, the batch with the longest input first.

    `limits` has for each input how many of its first tokens may be a prefix. A batch has at most `size` prefixes, or
    inputs where nothing is shared, and at most `tokens` tokens of these, padding included; a longer one goes alone.
    """
    shared, alone = _groups(limits)
    found = [*_together(shared, size, tokens), *_plain(alone, size, tokens)]
    return sorted(found, key=lambda batch: -batch.longest)


def _groups(limits: Mapping[Ids, int]) -> tuple[list[tuple[int, tuple[Ids, ...]]], list[Ids]]:
    """Groups with their common prefix's length, and the inputs that are in none: the split that saves most tokens.

    In lexicographic order all that begin alike stand together, so groups are runs, and the best split of the first n
    inputs follows from the best splits of fewer (dynamic programming).
    """
    rows = sorted(ids for ids, limit in limits.items() if limit >= LEAST)
    alike = [_common(one, other) for one, other in pairwise(rows)]
    best = [(0, 0, 0)]  # of the first n inputs: tokens saved, where the last group begins, its prefix (0: no group)
    for end in range(1, len(rows) + 1):
        found, prefix, cost = (best[end - 1][0], end - 1, 0), limits[rows[end - 1]], len(rows[end - 1])
        for begin in range(end - 2, max(end - MOST, 0) - 1, -1):
            prefix = min(prefix, alike[begin], limits[rows[begin]])
            if prefix < LEAST:
                break
            cost += len(rows[begin])
            saved = (end - begin - 1) * prefix
            if saved >= WORTH * cost:
                found = max(found, (best[begin][0] + saved, begin, prefix))
        best.append(found)
    shared, alone, end = [], [ids for ids, limit in limits.items() if limit < LEAST], len(rows)
    while end:
        _, begin, prefix = best[end]
        if prefix:
            shared.append((prefix, tuple(rows[begin:end])))
        else:
            alone.append(rows[begin])
        end = begin
    return shared, alone


def _common(one: Ids, other: Ids) -> int:
    """How many first tokens are the same."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _together(shared: list[tuple[int, tuple[Ids, ...]]], size: int, tokens: int) -> Iterator[Batch]:
    """Groups of like prefixes, all cut to the shortest: no padding stands between a prefix and what follows it."""
    waiting = sorted(shared, key=lambda group: -group[0])
    while waiting:
        longest = waiting[0][0]
        fit = [g for g in waiting[: max(1, min(size, tokens // longest))] if g[0] >= (1 - CUT) * longest]
        waiting = waiting[len(fit) :]
        yield Batch(fit[-1][0], tuple(group for _, group in fit))


def _plain(alone: list[Ids], size: int, tokens: int) -> Iterator[Batch]:
    waiting = sorted(alone, key=lambda ids: -len(ids))
    while waiting:
        count = max(1, min(size, tokens // len(waiting[0])))
        yield Batch(0, tuple((ids,) for ids in waiting[:count]))
        waiting = waiting[count:]
