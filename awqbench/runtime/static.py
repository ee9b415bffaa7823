"""Decoding with keys and values in memory of a fixed place and size, as a step that can be captured and replayed needs.

Built on transformers' StaticCache. Layers that see a sliding window or a chunk only get full-length layers too, and the
model's own mask hides what they must not see: transformers' static sliding layer counts positions in Python, which a
captured step would not run. What that costs is memory and reading beyond the window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from awqbench.runtime.probe import NotDescribed

log = logging.getLogger(__name__)

CAPACITY_STEP = 128  # attention reads the padding too: half of this per sequence on average
KEPT = 8
KEPT_BYTES = 4 * 2**30  # of caches that wait for their sizes to be asked for again

Step = Callable[[], Tensor]
# Makes a step a replayable one that leaves its result in the same tensor each time; raises RuntimeError if it can't.
Capture = Callable[[Step], Step]


class StaticModel:
    """Static decoding of one model. Caches, with their captured steps, are kept by (batch, capacity) and used again.

    `capture` makes the one-token step replayable; without, or once it has failed, the step runs as it is.
    `not_captured` then says why.
    """

    def __init__(self, model: Any, device: torch.device, capture: Capture | None = None) -> None:
        self._model, self._device, self._capture = model, device, capture
        self._slots: dict[tuple[int, int], Slot] = {}
        self.not_captured: str | None = None

    def begin(self, batch: int, length: int) -> StaticDecoding:
        """Start `batch` sequences of up to `length` tokens. Ends those that were begun with the same sizes before.

        Raises NotDescribed for a model that transformers has no static cache for.
        """
        key = batch, capacity(length)
        slot = self._slots.pop(key, None) or self._make(*key)
        self._slots[key] = slot  # the latest stands last
        return StaticDecoding(slot)

    def _make(self, batch: int, capacity: int) -> Slot:
        while len(self._slots) >= KEPT or sum(slot.bytes for slot in self._slots.values()) > KEPT_BYTES:
            del self._slots[next(iter(self._slots))]
        try:
            return self._captured(batch, capacity)
        except torch.OutOfMemoryError:
            self._slots.clear()
            return self._captured(batch, capacity)

    def _captured(self, batch: int, capacity: int) -> Slot:
        slot = Slot(self._model, self._device, batch, capacity)
        if self._capture is not None:
            try:
                slot.step = self._capture(slot.step)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._capture, self.not_captured = None, first_line(error)
                log.warning("the decoding step cannot be captured: %s", self.not_captured)
        return slot


class Slot:
    """A static cache, and the tensors from which the one-token step reads and to which it writes.

    ids and positions int64 [batch, 1]. `step` takes `ids` in, moves `positions` on, gives logits [batch, vocabulary].
    """

    def __init__(self, model: Any, device: torch.device, batch: int, capacity: int) -> None:
        self._model, self.capacity, self.uses = model, capacity, 0
        self.cache = static_cache(model.config, capacity)
        self.ids = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.ids)
        self.step: Step = self._advance
        self.step()  # allocates keys and values, on the stream that will use them
        stored = [layer for layer in self.cache.layers if hasattr(layer, "max_cache_len")]
        if not stored or not all(layer.is_initialized for layer in stored):
            raise NotDescribed("it leaves no keys and values in transformers' static cache")
        self.bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in stored)

    def reset(self) -> int:
        """Forget everything; the number of this use."""
        self.cache.reset()
        self.positions.zero_()
        self.uses += 1
        return self.uses

    def prefill(self, ids: Tensor, begin: int) -> Tensor:
        """Take ids [batch, n] in at position `begin` by the model's forward pass; logits after the last."""
        end = begin + ids.shape[1]
        positions = torch.arange(begin, end, device=self.ids.device).expand(ids.shape[0], -1)
        logits = self._forward(ids.to(self.ids.device), positions)
        self.positions.fill_(end)
        return logits

    def _advance(self) -> Tensor:
        logits = self._forward(self.ids, self.positions)
        self.positions.add_(1)
        return logits

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        return cast(Tensor, output.logits[:, -1])


class StaticDecoding:
    """The prompt by the ordinary forward pass, into a static cache; then the slot's step for each token."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._use, self._length = slot, slot.reset(), 0

    def feed(self, ids: Tensor) -> Tensor:
        """See `Decoding.feed`. Raises IndexError for a full cache, RuntimeError once the cache is used by another."""
        slot, count = self._slot, ids.shape[1]
        if slot.uses != self._use:
            raise RuntimeError("these sequences have ended: others of the same sizes were begun")
        if ids.shape[0] != slot.ids.shape[0] or self._length + count > slot.capacity:
            raise IndexError(
                f"{ids.shape[0]} x {count} ids after {self._length} (allowed: {slot.ids.shape[0]} sequences of up to "
                f"{slot.capacity})"
            )
        if count == 1:
            slot.ids.copy_(ids)
            logits = slot.step()
        else:
            logits = slot.prefill(ids, self._length)
        self._length += count
        return logits


def capacity(length: int) -> int:
    """Tokens that a cache for `length` tokens has room for."""
    return max(1, -(-length // CAPACITY_STEP)) * CAPACITY_STEP


def static_cache(config: Any, capacity: int) -> Any:
    """transformers' StaticCache with a full-length layer for each layer that keeps keys and values.

    Raises NotDescribed for state of another kind (state spaces, convolutions, compressed or indexed keys).
    """
    from transformers import cache_utils
    from transformers.cache_utils import StaticCache, StaticLayer, StaticSlidingWindowLayer

    # A layer without attention, or with another's keys and values; transformers 5.17 has none in the cache.
    nothing = getattr(cache_utils, "DummyLayer", StaticLayer)
    try:
        cache = StaticCache(config=config, max_cache_len=capacity)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotDescribed(f"transformers has no static cache for it: {first_line(error)}") from None
    for number, layer in enumerate(cache.layers):
        if type(layer) is StaticSlidingWindowLayer:
            cache.layers[number] = StaticLayer(max_cache_len=capacity)
        elif type(layer) not in (StaticLayer, nothing):
            raise NotDescribed(f"layer {number} keeps more than keys and values ({type(layer).__name__})")
    return cache


def first_line(error: Exception) -> str:
    """What an error says, short enough for a name."""
    return (str(error).splitlines() or [type(error).__name__])[0]
