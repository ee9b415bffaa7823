"""How far two next-token distributions lie apart, position by position, from tables of float32 log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from awqbench.backends.base import FloatArray, TopK
from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Floats

# Sizes of the top-k sets that are held against each other.
TOPS = (5, 10)
# What float32 log-probabilities lose of a sum of one.
_ROUNDING = 1e-6
# Rows worked on at once: their temporaries stay in a core's cache.
_ROWS = 4


@dataclass(frozen=True, slots=True)
class Positions:
    """Figures of each position of one stretch, by the short name of their metric; float64 [positions].

    `confidence` is the reference's probability of its own likeliest token. With `top`, only that many of the
    candidate's likeliest tokens were known, and `outside` is the reference's probability of all other tokens.
    """

    values: dict[str, Floats]
    confidence: Floats
    outside: Floats
    top: int | None = None

    def __len__(self) -> int:
        return len(self.confidence)


def joined(parts: list[Positions]) -> Positions:
    """Chunks of one stretch, one after the other."""
    return Positions(
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.outside for part in parts]),
        parts[0].top,
    )


def divergences(reference: FloatArray, candidate: FloatArray, targets: np.ndarray | None = None) -> Positions:
    """Divergences of two tables of float32 log-probabilities [positions, vocabulary], p the reference's, q the other's.

    kl = sum p (log p - log q) - sum (p - q), kl-reverse the same with p and q exchanged, in nats: for distributions
    the last sum is zero; for rounded ones it takes away the error that masses of 1 + 1e-7 would leave, so that no term
    is negative (the Bregman form of KL). total-variation = sum |p - q| / 2. topK-disagreement is the share of the
    reference's K likeliest tokens that are not among the candidate's K likeliest; K = 1, and those of `TOPS` below the
    vocabulary. log-ppl-ratio = log p - log q of the token that the text has there, `targets` int [positions], in nats:
    positive where the candidate predicts the text worse. Products are float32, sums float64. A probability of zero
    contributes nothing on its own side, as in the limit. Raises InvalidMeasurement for NaN.
    """
    count, vocabulary = reference.shape
    kl, back, variation = np.empty(count), np.empty(count), np.empty(count)
    with np.errstate(invalid="ignore"):  # -inf is dealt with below, row by row
        for low in range(0, count, _ROWS):
            rows = slice(low, low + _ROWS)
            kl[rows], back[rows], variation[rows] = _sums(reference[rows], candidate[rows])
    for row in np.flatnonzero(~np.isfinite(kl + back)):
        kl[row], back[row] = _with_zeros(reference[row], candidate[row])
    best, other = reference.argmax(axis=1), candidate.argmax(axis=1)
    values = {
        # Rounding can leave a KL of 1e-9 below zero where the two agree to the last bit but one.
        "kl": np.maximum(kl, 0.0),
        "kl-reverse": np.maximum(back, 0.0),
        "total-variation": variation,
        "top1-disagreement": (best != other).astype(np.float64),
    }
    sizes = [size for size in TOPS if size < vocabulary]
    most = max(sizes, default=0)
    values |= top_disagreements(likeliest(reference, most), likeliest(candidate, most), sizes)
    if targets is not None:
        values["log-ppl-ratio"] = _taken(reference, targets) - _taken(candidate, targets)
    return Positions(values, np.exp(_taken(reference, best)), np.zeros(count))


def _sums(reference: FloatArray, candidate: FloatArray) -> tuple[Floats, Floats, Floats]:
    """KL, reverse KL and total variation of a few rows; not finite where a probability is zero on one side."""
    gap = np.subtract(reference, candidate)
    p, q = np.exp(reference), np.exp(candidate)
    kl = np.multiply(p, gap).sum(axis=1, dtype=np.float64)
    back = -np.multiply(q, gap, out=gap).sum(axis=1, dtype=np.float64)
    np.subtract(p, q, out=p)
    excess = p.sum(axis=1, dtype=np.float64)
    return kl - excess, back + excess, np.abs(p, out=p).sum(axis=1, dtype=np.float64) / 2


def _with_zeros(reference: FloatArray, candidate: FloatArray) -> tuple[float, float]:
    """KL and reverse KL of one row with zeros among its probabilities. Raises InvalidMeasurement for NaN."""
    if np.isnan(reference).any() or np.isnan(candidate).any():
        raise InvalidMeasurement("log-probabilities that are not a number")
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    p, q = np.exp(a), np.exp(b)
    with np.errstate(invalid="ignore"):
        gap = a - b
        excess = (p - q).sum()
        return (
            float(np.where(np.isneginf(a), 0.0, p * gap).sum() - excess),
            float(np.where(np.isneginf(b), 0.0, -q * gap).sum() + excess),
        )


def likeliest(table: FloatArray, size: int) -> np.ndarray:
    """The ids of the `size` likeliest tokens of each position, likeliest first; int [positions, size]."""
    if size == 0:
        return np.empty((len(table), 0), np.intp)
    found = np.argpartition(table, table.shape[1] - size, axis=1)[:, -size:]
    order = np.argsort(-np.take_along_axis(table, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def top_disagreements(reference: np.ndarray, candidate: np.ndarray, sizes: list[int]) -> dict[str, Floats]:
    """1 - |top-k of one and of the other| / k for each size k, from ids sorted by likelihood [positions, k or more]."""
    return {
        f"top{size}-disagreement": 1
        - (reference[:, :size, None] == candidate[:, None, :size]).any(axis=2).sum(axis=1) / size
        for size in sizes
    }


def bounded_divergences(reference: FloatArray, top: TopK) -> Positions:
    """What the candidate's k likeliest tokens alone prove of KL(reference || candidate), position by position.

    The tokens that are told contribute their own terms. All others, of mass P in the reference and Q in the candidate,
    contribute at least P log(P / Q) by the log-sum inequality, whatever their shares; equality holds where the two
    agree on the shape of the rest. There is no upper bound: one token that the candidate excludes may cost any amount.
    Disagreement on the likeliest tokens is exact up to k. Raises InvalidMeasurement for NaN.
    """
    ids, size = top.ids.astype(np.int64), top.ids.shape[1]
    told = np.take_along_axis(reference, ids, axis=1).astype(np.float64)
    given = top.logprobs.astype(np.float64)
    if np.isnan(told).any() or np.isnan(given).any():
        raise InvalidMeasurement("log-probabilities that are not a number")
    with np.errstate(invalid="ignore"):
        inside = np.where(np.isneginf(told), 0.0, np.exp(told) * (told - given)).sum(axis=1)
    outside = np.clip(1.0 - np.exp(told).sum(axis=1), 0.0, 1.0)
    # Rounding may leave the rest with nothing, or with too little by a large factor; a larger Q only lowers the bound.
    rest = np.maximum(1.0 - np.exp(given).sum(axis=1), 0.0) + _ROUNDING
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(outside > 0, outside * np.log(outside / rest), 0.0)
    ranked = np.take_along_axis(ids, np.argsort(-given, axis=1, kind="stable"), axis=1)
    best = reference.argmax(axis=1)
    values = {
        f"kl-top{size}-lower-bound": np.maximum(inside + tail, 0.0),
        "top1-disagreement": (best != ranked[:, 0]).astype(np.float64),
    }
    sizes = [k for k in TOPS if k <= size and k < reference.shape[1]]
    values |= top_disagreements(likeliest(reference, max(sizes, default=0)), ranked, sizes)
    return Positions(values, np.exp(_taken(reference, best)), outside, top=size)


def _taken(table: FloatArray, ids: np.ndarray) -> Floats:
    """One token's log-probability at each position; float64 [positions]."""
    return np.take_along_axis(table, ids[:, None].astype(np.int64), axis=1)[:, 0].astype(np.float64)
