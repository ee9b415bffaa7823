"""Decoding in steps, for the tests of every runtime."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from awqbench.runtime.decoding import Decoding


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random ids that all the tests' models have."""
    return torch.randint(3, 101, (batch, length), generator=torch.Generator().manual_seed(seed))


def decoded(decoding: Decoding, tokens: Tensor, *cuts: int) -> Tensor:
    """Logits after each part: up to each cut (the prompt, first of all), and then one token at a time."""
    bounds = [0, *cuts, *range(cuts[-1] + 1, tokens.shape[1] + 1)]
    return torch.stack([decoding.feed(tokens[:, a:b]).clone() for a, b in pairwise(bounds)], 1)


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    """Within a tolerance, by default a few roundings of float32, of the largest logit of the row."""
    difference = (found - wanted).float().abs().amax(-1) / wanted.float().abs().amax(-1)
    assert float(difference.max()) < tolerance, float(difference.max())
