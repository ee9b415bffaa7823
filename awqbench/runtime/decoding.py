"""One batch of sequences on its way through a model, a few tokens at a time."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor


class Decoding(Protocol):
    """What an engine asks of a runtime."""

    def feed(self, ids: Tensor) -> Tensor:
        """Take the next ids [batch, n] in; logits [batch, vocabulary] after the last, valid until the next call."""


class TransformersDecoding:
    """The model's own forward pass, whatever state it carries from step to step."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device
        self.state: dict[str, Any] = {}

    def feed(self, ids: Tensor) -> Tensor:
        """See `Decoding.feed`. Raises ValueError for a model that carries no state."""
        output = self._model(input_ids=ids.to(self._device), use_cache=True, logits_to_keep=1, **self.state)
        self.state = carried_state(output)
        return cast(Tensor, output.logits[:, -1])


def carried_state(output: Any) -> dict[str, Any]:
    """What a model hands from one step to the next, under the name it takes it by.

    Attention models keep keys and values; state-space and recurrent ones (Mamba, RWKV) name theirs otherwise.
    """
    for name in ("past_key_values", "cache_params", "state"):
        if getattr(output, name, None) is not None:
            return {name: output[name]}
    raise ValueError(f"{type(output).__name__} carries no state from step to step: it cannot be decoded token by token")
