"""Choices of a question scored together: the packed engine gives the scores of each alone, and computes less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from awqbench.backends.packed import PackedBackend

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": None}


def test_a_packed_checkpoint_shares_beginnings(checkpoint: Callable[[str], Path]) -> None:
    engine = PackedBackend()
    engine.load({**OPTIONS, "weights": str(checkpoint("awq"))})
    positions: list[int] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, named: positions.append(named["input_ids"].numel()), with_kwargs=True
    )
    draw = np.random.default_rng(0)
    contexts = [draw.integers(3, 259, length).tolist() for length in (90, 88, 85)]
    sequences = [context + draw.integers(3, 259, 4).tolist() for context in contexts for _ in range(4)]
    starts = [len(sequence) - 4 for sequence in sequences]
    found = list(engine.score(sequences, starts))
    proof_and_scores = sum(positions)
    alone = [next(engine.score([sequence], [start])) for sequence, start in zip(sequences, starts, strict=True)]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)
        np.testing.assert_array_equal(one.argmax, other.argmax)
    assert engine._prefixes.limit == engine.model.config.max_position_embeddings
    assert 2 * proof_and_scores < sum(map(len, sequences))
