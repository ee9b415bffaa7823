"""Calibration windows, and how the blocks of a model are called when they are run through it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqbench.errors import UserError

_BATCH_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids [windows, seq_len], int64, and what was asked for."""

    ids: Tensor
    asked: int

    @property
    def tokens(self) -> int:
        """Tokens there really are, which a short text makes fewer than were asked for."""
        return self.ids.numel()

    @property
    def sha256(self) -> str:
        """Hash of the ids as little-endian int64: the calibration set's identity."""
        return hashlib.sha256(self.ids.numpy().astype("<i8").tobytes()).hexdigest()


def cut_windows(ids: Tensor, samples: int, seq_len: int) -> Windows:
    """`samples` windows of `seq_len` ids, spread evenly over a token stream [tokens].

    Window i starts at i * ((N - seq_len) // samples), or further on where windows would otherwise overlap. A stream too
    short for all of them gives as many as fit. Raises UserError when not even one fits.
    """
    total = ids.numel()
    count = min(samples, total // seq_len)
    if count < 1:
        raise UserError(
            f"the calibration text has {total} tokens, fewer than one window of {seq_len}"
            " (allowed: a longer text or a smaller seq_len)"
        )
    stride = max((total - seq_len) // count, seq_len)
    windows = torch.stack([ids[i * stride : i * stride + seq_len] for i in range(count)])
    return Windows(windows.to(torch.int64), samples)


@dataclass(slots=True)
class BlockCall:
    """How a block is called beside its hidden state: the same for every batch, as all have one shape."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """The block's hidden state for `hidden`."""
        return first_tensor(block(hidden, *self.args, **self.kwargs))


@dataclass(slots=True)
class BlockCalls:
    """How a block is called for inputs of three lengths; every batch of one length is called alike.

    `full`: calibration batches [batch, seq_len, width]. `stretch`: the first tokens of one window. `single`: one token.
    Blocks are causal, so the beginning of a batch's hidden state is a valid input for the shorter ones.
    """

    full: BlockCall
    stretch: BlockCall
    single: BlockCall


def first_tensor(output: Any) -> Tensor:
    """A module's main output: the tensor itself, or the first of a tuple."""
    tensor = output if isinstance(output, Tensor) else output[0]
    assert isinstance(tensor, Tensor)
    return tensor


def equal_batches(ids: Tensor) -> list[Tensor]:
    """Batches of one size, the largest divisor that keeps to the token budget, so that one call serves all."""
    count, length = ids.shape
    size = max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * length <= _BATCH_TOKENS))
    return list(torch.split(ids, size))
