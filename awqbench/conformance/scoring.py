"""Checks of what is said of a text: scores and whole distributions."""

from __future__ import annotations

import numpy as np

from awqbench.conformance.subject import LENGTHS, Subject
from awqbench.conformance.verdict import Failed, largest, within


def scores_are_log_probabilities(subject: Subject) -> str:
    """Every score is a number, at most 0, one for each token after the first."""
    values = np.concatenate([scored.logprobs for scored in subject.scored])
    if not np.isfinite(values).all():
        raise Failed(f"{(~np.isfinite(values)).sum()} of {values.size} scores are not finite")
    if values.max() > 1e-4:
        raise Failed(f"a log-probability of {values.max():.3g}")
    highest = max(int(scored.argmax.max()) for scored in subject.scored if scored.argmax.size)
    vocabulary = subject.worker.description.get("vocab_size") or np.inf
    if not 0 <= highest < vocabulary:
        raise Failed(f"the most likely token is {highest}, of a vocabulary of {vocabulary}")
    return f"{values.size} scores from {values.min():.2f} to {values.max():.2f} nats"


def order_and_batching_change_nothing(subject: Subject) -> str:
    """A sequence's scores do not depend on what is scored with it, or in which order, beyond rounding."""
    worker, sequences, ones = subject.worker, subject.sequences, [1] * len(LENGTHS)
    backwards = worker.score(sequences[::-1], ones)[::-1]
    alone = [worker.score([sequence], [1])[0] for sequence in sequences]
    together = subject.scored
    error = max(
        largest(one.logprobs, other.logprobs)
        for ways in (backwards, alone)
        for one, other in zip(together, ways, strict=True)
    )
    return within("largest difference", error, subject.tolerance)


def starts_are_honoured(subject: Subject) -> str:
    """Scoring from a later start gives the same scores, from there on only."""
    starts = [max(1, len(sequence) // 2) for sequence in subject.sequences]
    later = subject.worker.score(subject.sequences, starts)
    error = max(
        largest(whole.logprobs[start - 1 :], part.logprobs)
        for whole, part, start in zip(subject.scored, later, starts, strict=True)
    )
    return within("largest difference", error, subject.tolerance)


def nothing_to_score_is_no_error(subject: Subject) -> str:
    """A start at the end of a sequence leaves nothing to score: an empty result, in its place among the others."""
    subject.need("score")
    one, many = subject.ids[:1], subject.sequences[1]
    lengths = [len(s.logprobs) for s in subject.worker.score([one, many, many], [1, len(many), len(many) - 1])]
    if lengths != [0, 0, 1]:
        raise Failed(f"results of {lengths} scores, not [0, 0, 1]")
    return "results of 0, 0 and 1 scores"


def distributions_sum_to_one(subject: Subject) -> str:
    """A row covers the whole vocabulary and its probabilities sum to one: nothing was cut, tempered or penalized."""
    table = subject.table
    vocabulary = int(subject.worker.description["vocab_size"])
    if table.shape != (len(subject.passage) - 1, vocabulary):
        raise Failed(f"shape {list(table.shape)}, not {[len(subject.passage) - 1, vocabulary]}")
    if np.isnan(table).any():
        raise Failed("a log-probability is not a number")
    sums = np.exp(table.astype(np.float64)).sum(axis=1)
    return within("largest distance of a sum from one", float(np.abs(sums - 1).max()), 1e-3, "")


def scores_are_in_the_distributions(subject: Subject) -> str:
    """What score says of a token is what logprobs says of it."""
    subject.need("score")
    scored = subject.worker.score([subject.passage], [1])[0]
    own = subject.table[np.arange(len(subject.table)), subject.passage[1:]]
    best = subject.table.max(axis=1) - subject.table[np.arange(len(subject.table)), scored.argmax]
    first = within("largest difference", largest(own, scored.logprobs), subject.tolerance)
    return f"{first}; {within('its most likely token is short of the best by', float(best.max()), subject.tolerance)}"


def rows_begin_at_start(subject: Subject) -> str:
    """logprobs from a later start gives the same rows, from there on only."""
    whole = subject.table
    later = subject.rows("prefill", 20)
    return within("largest difference", _apart(whole[19:], later), subject.tolerance)


def decoding_agrees_with_prefill(subject: Subject) -> str:
    """Fed one token at a time through the cache, the model says what it says in one pass."""
    subject.need("decode-logprobs")
    stepped = subject.rows("decode", 8)
    sums = np.exp(stepped.astype(np.float64)).sum(axis=1)
    one = within("largest distance of a sum from one", float(np.abs(sums - 1).max()), 1e-3, "")
    if subject.worker.offers("logprobs"):
        whole = subject.table[7:]
        divergence = float((np.exp(whole) * (whole - stepped)).sum(axis=1).mean())
        return f"{within('mean divergence', abs(divergence), subject.tolerance, 'nats a token')}; {one}"
    if subject.worker.offers("score"):
        own = stepped[np.arange(len(stepped)), subject.passage[8:]]
        scored = subject.worker.score([subject.passage], [8])[0].logprobs
        return f"{within('largest difference from score', largest(own, scored), subject.tolerance)}; {one}"
    return one


def top_tokens_are_the_top(subject: Subject) -> str:
    """topk_logprobs gives the most likely tokens and their log-probabilities, no token twice."""
    subject.need("topk-logprobs")
    k = min(10, int(subject.worker.description.get("topk") or 10))
    found = list(subject.worker.topk_logprobs(subject.passage, 1, k))
    ids, logprobs = np.concatenate([t.ids for t in found]), np.concatenate([t.logprobs for t in found])
    if any(len(set(row)) != len(row) for row in ids.tolist()):
        raise Failed("a token stands twice in one row")
    mass = np.exp(logprobs.astype(np.float64)).sum(axis=1).max()
    if mass > 1 + 1e-3:
        raise Failed(f"{k} tokens have a probability of {mass:.4f}")
    if subject.worker.offers("logprobs"):
        values = np.take_along_axis(subject.table, ids, axis=1)
        least = np.sort(subject.table, axis=1)[:, -ids.shape[1]]
        short = float((least - values.min(axis=1)).max())
        first = within("largest difference", largest(values, logprobs), subject.tolerance)
        return f"{first}; {within('a token outside the top, by', max(0.0, short), subject.tolerance)}"
    if subject.worker.offers("score"):
        own = subject.worker.score([subject.passage], [1])[0].logprobs
        pairs = [
            (logprobs[row][ids[row] == token][0], own[row])
            for row, token in enumerate(subject.passage[1:])
            if token in ids[row]
        ]
        error = max((abs(float(one - other)) for one, other in pairs), default=0.0)
        return f"{within('largest difference from score', error, subject.tolerance)}, {len(pairs)} tokens"
    return f"{len(ids)} rows of {ids.shape[1]} tokens, {mass:.4f} of probability at most"


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference where it matters: weighted by probability, so that the far tail is left out."""
    if one.shape != other.shape:
        return float("inf")
    return float((np.exp(one) * np.abs(one - other)).sum(axis=1).max())
