"""One batch of sequences on its way through a model, a few tokens at a time."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, cast

import torch
from torch import Tensor


class Decoding(Protocol):
    """What an engine asks of a runtime."""

    def feed(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """Take the next ids [batch, n] in; logits [batch, vocabulary] after the last, valid until the next call.

        `padding` int64 [batch], with the first ids only: how many of them, on the left, are no tokens of the row.
        """

    def keep(self, rows: list[int]) -> bool:
        """Go on with these rows alone, in this order. False, and nothing happens, where a batch must stay whole."""


class TransformersDecoding:
    """The model's own forward pass, whatever state it carries from step to step."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device
        self.state: dict[str, Any] = {}
        self._mask: Tensor | None = None  # int64 [batch, all ids so far], where there is padding

    def feed(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """See `Decoding.feed`. Raises ValueError for a model that carries no state."""
        ids = ids.to(self._device)
        if padding is not None:
            self._mask = seen(padding.to(self._device), ids.shape[1])
        elif self._mask is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(ids)], 1)
        where = {} if self._mask is None else self._places(self._mask, ids.shape[1])
        output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **where, **self.state)
        self.state = carried_state(output)
        return cast(Tensor, output.logits[:, -1])

    def _places(self, mask: Tensor, count: int) -> dict[str, Tensor]:
        """The mask, and for a model that takes them, the positions of the last `count` ids without the padding."""
        where = {"attention_mask": mask}
        if "position_ids" in inspect.signature(self._model.forward).parameters:
            where["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -count:]
        return where

    def keep(self, rows: list[int]) -> bool:
        """See `Decoding.keep`: keys and values can be picked from, other state stays whole."""
        select = getattr(self.state.get("past_key_values"), "batch_select_indices", None)
        if select is None:
            return False
        picked = torch.tensor(rows, device=self._device)
        select(picked)
        if self._mask is not None:
            self._mask = self._mask[picked]
        return True


def seen(padding: Tensor, count: int) -> Tensor:
    """The mask int64 [batch, count] of rows that begin with so many ids which are no tokens."""
    return (torch.arange(count, device=padding.device) >= padding[:, None]).long()


def carried_state(output: Any) -> dict[str, Any]:
    """What a model hands from one step to the next, under the name it takes it by.

    Attention models keep keys and values; state-space and recurrent ones (Mamba, RWKV) name theirs otherwise.
    """
    for name in ("past_key_values", "cache_params", "state"):
        if getattr(output, name, None) is not None:
            return {name: output[name]}
    raise ValueError(f"{type(output).__name__} carries no state from step to step: it cannot be decoded token by token")
