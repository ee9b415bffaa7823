"""Greedy generation in batches, by whatever decodes the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from awqbench.backends.stops import Stops
from awqbench.runtime.attach import Runtime

# Keys and values of one batch are for so many tokens at most: 4 GiB for a model of 8 billion parameters in 16 bits.
BATCH_TOKENS = 32_768
# Rows that have ended are computed on until so large a part of them has: to let them go copies the others' cache.
ENDED_PART = 0.25


def generate(
    runtime: Runtime, prompts: Sequence[Sequence[int]], new_tokens: int, stops: Stops, batch_size: int
) -> list[list[int]]:
    """Greedy continuations: see `Backend.generate`. Prompts of like length share a batch, the longest first."""
    answers: list[list[int]] = [[] for _ in prompts]
    if new_tokens < 1:
        return answers
    for batch in _batches(runtime, list(map(len, prompts)), new_tokens, batch_size):
        found = _continue(runtime, [prompts[place] for place in batch], new_tokens, stops)
        for place, answer in zip(batch, found, strict=True):
            answers[place] = answer
    return answers


def _batches(runtime: Runtime, lengths: list[int], new_tokens: int, batch_size: int) -> Iterator[list[int]]:
    """Places of the prompts that are decoded together."""
    most = min(batch_size, runtime.largest_batch or batch_size)
    waiting = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    sharing = runtime.sharing if most > 1 and len(waiting) > 1 else "none"
    while waiting:
        longest = lengths[waiting[0]]
        room = 1 if sharing == "none" else max(1, min(most, BATCH_TOKENS // (longest + new_tokens)))
        batch = [place for place in waiting[:room] if sharing != "alike" or lengths[place] == longest]
        yield batch
        del waiting[: len(batch)]


def _continue(runtime: Runtime, prompts: Sequence[Sequence[int]], new_tokens: int, stops: Stops) -> list[list[int]]:
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    fed = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    padded = bool(padding.any())
    decoding = runtime.begin(len(prompts), longest + new_tokens, padded)
    logits = decoding.feed(fed, padding if padded else None)
    answers: list[list[int]] = [[] for _ in prompts]
    rows, open_rows = list(range(len(prompts))), set(range(len(prompts)))  # those that are decoded, and still wanted
    for step in range(1, new_tokens + 1):
        tokens = logits.argmax(-1).tolist()
        for row, token in zip(rows, tokens, strict=True):
            if row not in open_rows:
                continue
            if not stops.at(token):
                answers[row].append(token)
            if stops.at(token) or stops.after(answers[row]):
                open_rows.discard(row)
        if not open_rows or step == new_tokens:
            break
        if len(open_rows) <= (1 - ENDED_PART) * len(rows):
            kept = [place for place, row in enumerate(rows) if row in open_rows]
            if decoding.keep(kept):
                rows, tokens = [rows[place] for place in kept], [tokens[place] for place in kept]
        logits = decoding.feed(torch.tensor(tokens)[:, None])
    return answers
