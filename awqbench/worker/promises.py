"""What the client takes from a backend only in the shape that was promised: a plugin's mistake costs its cell alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from awqbench.backends.base import Capability, FloatArray, IntArray

CAPABILITIES: tuple[str, ...] = get_args(Capability)


class BrokenPromise(Exception):
    """A backend answered something else than its interface says."""


def description(found: Any) -> dict[str, Any]:
    """A description with what no client can do without."""
    if not isinstance(found, dict):
        raise BrokenPromise(f"load returned {type(found).__name__}, not a description")
    capabilities = found.get("capabilities")
    if not isinstance(capabilities, list):
        raise BrokenPromise("its description has no list of capabilities")
    if unknown := [name for name in capabilities if name not in CAPABILITIES]:
        raise BrokenPromise(f"it declares {unknown[0]!r} (allowed: {', '.join(CAPABILITIES)})")
    if not isinstance(found.get("load_s", ""), int | float | None):
        raise BrokenPromise("its description has no load_s: seconds, or None where the weights were loaded before")
    return found


def scored_lengths(lengths: Sequence[int], expected: Sequence[int], done: int) -> None:
    """The next results are as many and as long as the sequences they belong to."""
    if done + len(lengths) > len(expected):
        raise BrokenPromise(f"{len(expected)} sequences were sent and more results came back")
    for place, (length, wanted) in enumerate(zip(lengths, expected[done:], strict=False), done):
        if length != wanted:
            raise BrokenPromise(f"sequence {place} has {wanted} tokens to score, its result {length}")


def aligned(lengths: Sequence[int], **arrays: np.ndarray[Any, Any]) -> None:
    """Each array has one number for each scored token, or a result's would be read as the next one's."""
    for name, array in arrays.items():
        if array.shape != (sum(lengths),):
            raise BrokenPromise(f"{name} of shape {list(array.shape)} for {sum(lengths)} scored tokens")


def count(what: str, got: int, expected: int) -> None:
    """As many answers as questions."""
    if got != expected:
        raise BrokenPromise(f"{expected} {what} were expected, {got} came back")


def rows(chunk: FloatArray, vocabulary: int | None) -> FloatArray:
    """A chunk [rows, vocabulary] of log-probabilities."""
    if chunk.ndim != 2 or (vocabulary and chunk.shape[1] != vocabulary):
        raise BrokenPromise(f"log-probabilities of shape {list(chunk.shape)}, not [rows, {vocabulary or 'vocabulary'}]")
    return chunk


def top(ids: IntArray, logprobs: FloatArray, k: int) -> None:
    """A chunk of the k most likely tokens: two arrays [rows, k], or fewer where the vocabulary is smaller."""
    if ids.ndim != 2 or ids.shape != logprobs.shape or not 0 < ids.shape[1] <= k:
        raise BrokenPromise(f"top tokens of shape {list(ids.shape)} and {list(logprobs.shape)}, not [rows, {k}]")


def gaps(found: np.ndarray[Any, Any], expected: int) -> list[float]:
    """One finite gap before each token after the first."""
    count("gaps between tokens", found.size, expected)
    if not np.isfinite(found).all():
        raise BrokenPromise("a gap between two tokens is not a number")
    measured: list[float] = found.tolist()
    return measured
