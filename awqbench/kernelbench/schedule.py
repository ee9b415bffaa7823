"""In which order contenders take their turns: forwards and backwards, so that a slow drift hits all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
MOST = 256


def turns(contenders: Sequence[T], runs: int) -> Iterator[T]:
    """Each contender `runs` times: A B C, C B A, A B C ... (ABBA for two)."""
    for run in range(runs):
        yield from contenders if run % 2 == 0 else reversed(contenders)


def copies(bytes_each: float, cache_bytes: float) -> int:
    """How many copies of the weights are used in rotation: three caches full in all, two at the least.

    By the time a copy's turn comes again, at least two caches full of others have passed through. Weights so small
    that it would take more than 256 copies are not what this is for.
    """
    return min(MOST, max(2, int(-(-3 * cache_bytes // max(bytes_each, 1)))))


def launches(count: int, least: int = 50) -> int:
    """Launches of one replay: the first multiple of the copies that is enough."""
    return count * -(-least // count)
