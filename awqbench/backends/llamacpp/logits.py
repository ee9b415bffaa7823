"""Log-probabilities from logits with numpy alone, in float32, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from awqbench.backends.base import FloatArray, IntArray, Scored

# Numbers handled at once: what is read twice stays in a core's cache.
_AT_ONCE = 1 << 19


def log_softmax(logits: FloatArray) -> FloatArray:
    """Natural log-probabilities, float32 [rows, vocabulary], in new memory."""
    out: FloatArray = np.empty_like(logits)
    for span in _spans(logits):
        part = np.subtract(logits[span], logits[span].max(axis=1, keepdims=True), out=out[span])
        part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    return out


def score_rows(logits: FloatArray, targets: IntArray) -> Scored:
    """Each target's log-probability and the most likely token, a row for a target."""
    logprobs, argmax = np.empty(len(targets), np.float32), np.empty(len(targets), np.int32)
    for span in _spans(logits):
        part = logits[span]
        best = part.argmax(axis=1)
        rows = np.arange(len(part))
        top = part[rows, best]
        total = np.log(np.exp(part - top[:, None]).sum(axis=1))
        logprobs[span], argmax[span] = part[rows, targets[span]] - top - total, best
    return Scored(logprobs, argmax)


def _spans(logits: FloatArray) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(1, logits.shape[1]))
    for low in range(0, len(logits), step):
        yield slice(low, min(low + step, len(logits)))
