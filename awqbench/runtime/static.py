"""Decoding with keys and values in memory of a fixed place and size, as a step that can be captured and replayed needs.

The step is ours (fused.py) for models that it is proved for. Else it is the model's forward pass, made of few kernels:
a position is counted once, not in every layer, and where all layers see everything, one additive mask serves them all,
which scaled-dot-product attention would else make of a boolean one in each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from awqbench.errors import first_line
from awqbench.runtime.decoding import seen
from awqbench.runtime.fused import FusedStep
from awqbench.runtime.probe import NotDescribed
from awqbench.runtime.static_cache import static_cache

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
    `not_captured` then says why. `own_mask`: whether the model's step may bring a mask of ours. `fused`: the step that
    runs in its place, for the sizes that it fits; `not_fused`: why there is none where one was wanted.
    """

    def __init__(
        self, model: Any, device: torch.device, capture: Capture | None = None, own_mask: bool = True,
        fused: FusedStep | None = None, not_fused: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.device, self._capture, self._own_mask = model, device, capture, own_mask
        self.fused, self.not_fused = fused, not_fused
        self._wanted = capture is not None
        self._slots: dict[tuple[int, int, bool], Slot] = {}
        self.not_captured: str | None = None

    @property
    def name(self) -> str:
        """What it turned out to be: cuda-graph or static, with our step "fused"; and what is not as it was wanted."""
        name = "cuda-graph" if self._wanted and self.not_captured is None else "static"
        if self.fused is not None:
            name += ", fused"
        lacking = {"no CUDA graph": self.not_captured, "not fused": self.not_fused}
        reasons = [f"{what}: {why}" for what, why in lacking.items() if why is not None]
        return ": ".join([name, *filter(None, ["; ".join(reasons)])])

    def unfused(self, batch: int, length: int) -> str | None:
        """Why sequences of these sizes are not for the fused step there is; None: they are."""
        return None if self.fused is None else self.fused.unfit(batch, capacity(length))

    def uncaptured(self, batch: int, length: int) -> str | None:
        """Why the step for sequences of these sizes, begun before, is not captured; None: it is, or they were not."""
        slot = self._slots.get((batch, capacity(length), False))
        return self.not_captured if slot is not None and slot.replay is None else None

    def begin(self, batch: int, length: int, padded: bool = False) -> StaticDecoding:
        """Start `batch` sequences of up to `length` tokens. Ends those that were begun with the same sizes before.

        `padded`: the first ids will have padding on the left. Raises NotDescribed for a model that transformers has no
        static cache for, or whose step takes no mask of ours to hide padding.
        """
        key = batch, capacity(length), padded
        slot = self._slots.pop(key, None) or self._make(*key)
        self._slots[key] = slot  # the latest stands last
        return StaticDecoding(slot)

    def _make(self, batch: int, capacity: int, padded: bool) -> Slot:
        while len(self._slots) >= KEPT or sum(slot.bytes for slot in self._slots.values()) > KEPT_BYTES:
            del self._slots[next(iter(self._slots))]
        try:
            return self._captured(batch, capacity, padded)
        except torch.OutOfMemoryError:
            self._slots.clear()
        return self._captured(batch, capacity, padded)  # out here, where no error holds what the first try had taken

    def _captured(self, batch: int, capacity: int, padded: bool) -> Slot:
        fused = self.fused if self.fused is not None and self.fused.unfit(batch, capacity) is None else None
        slot = Slot(self.model, self.device, batch, capacity, self._own_mask, padded, fused)
        if self._capture is not None:
            try:
                slot.replay = self._capture(slot.advance)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._capture, self.not_captured = None, first_line(error)
                log.warning("the decoding step cannot be captured: %s", self.not_captured)
        return slot


class Slot:
    """A static cache, and the tensors from which the one-token step reads and to which it writes.

    `ids` int64 [batch, 1], `length` int64 [1]: how many ids the cache holds of each row. `step` takes `ids` in, adds 1
    to `length` and gives logits [batch, vocabulary]. `padding` int64 [batch], where `padded`: how many of the cache's
    ids, on the left, are no tokens of the row.
    """

    def __init__(
        self, model: Any, device: torch.device, batch: int, capacity: int, own_mask: bool = True, padded: bool = False,
        fused: FusedStep | None = None,
    ) -> None:  # fmt: skip
        self._model, self.capacity, self.uses = model, capacity, 0
        self.ids = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.length = torch.zeros(1, dtype=torch.long, device=device)
        self.cache, sees_all = static_cache(model.config, capacity, self.length)
        self.padding = torch.zeros(batch, dtype=torch.long, device=device) if padded else None
        self._columns: Tensor | None = None
        self.replay: Step | None = None  # no reference back to this slot, whose memory shall go with the last use of it
        self._fused: Step | None = None
        self.advance()  # allocates keys and values, on the stream that will use them
        if own_mask and sees_all and model.config._attn_implementation in ("sdpa", "eager"):
            self._columns = torch.arange(capacity, device=device).view(1, 1, 1, -1)
            self._seen = torch.zeros((), dtype=model.dtype, device=device)
            self._unseen = torch.full_like(self._seen, torch.finfo(model.dtype).min)
        if padded and self._columns is None and fused is None:
            raise NotDescribed("its step takes no mask that would hide padding")
        stored = [layer for layer in self.cache.layers if hasattr(layer, "max_cache_len")]
        if not stored or not all(layer.is_initialized for layer in stored):
            raise NotDescribed("it leaves no keys and values in transformers' static cache")
        self.bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in stored)
        if fused is not None:
            tables = fused.tables(capacity, device)
            ids, layers = self.ids.view(-1), self.cache.layers
            self._fused = partial(fused, ids, layers, self.length, self.padding, tables)

    def reset(self) -> int:
        """Forget everything; the number of this use."""
        self.cache.reset()
        self.length.zero_()
        self.uses += 1
        return self.uses

    def prefill(self, ids: Tensor, begin: int) -> Tensor:
        """Take ids [batch, n] in at place `begin` of the cache by the model's forward pass; logits after the last."""
        end, mask = begin + ids.shape[1], None
        positions = torch.arange(begin, end, device=self.ids.device).expand(ids.shape[0], -1)
        if self.padding is not None:
            mask = seen(self.padding, end)
            positions = (positions - self.padding[:, None]).clamp(min=0)
        logits = self._forward(ids.to(self.ids.device), positions, mask)
        self.length.fill_(end)
        return logits

    def step(self) -> Tensor:
        """One token by replay where there is one; the logits may be overwritten by the next step."""
        return self.advance() if self.replay is None else self.replay()

    def advance(self) -> Tensor:
        """One token by the fused step or the model's forward pass, in a way that can be captured."""
        logits = self._forward_one() if self._fused is None else self._fused()
        self.length.add_(1)
        return logits

    def _forward_one(self) -> Tensor:
        mask, positions = None, self.length.expand_as(self.ids)
        if self._columns is not None:
            sees = self._columns <= self.length
            if self.padding is not None:
                sees = sees & (self._columns >= self.padding.view(-1, 1, 1, 1))
                positions = positions - self.padding[:, None]
            mask = torch.where(sees, self._seen, self._unseen).expand(len(self.ids), 1, 1, -1)
        return self._forward(self.ids, positions, mask)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return cast(Tensor, output.logits[:, -1])


class StaticDecoding:
    """The prompt by the ordinary forward pass, into a static cache; then the slot's step for each token."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._use, self._length = slot, slot.reset(), 0

    def feed(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """See `Decoding.feed`. Raises IndexError for a full cache, RuntimeError once the cache is used by another."""
        slot, count = self._slot, ids.shape[1]
        if slot.uses != self._use:
            raise RuntimeError("these sequences have ended: others of the same sizes were begun")
        if ids.shape[0] != slot.ids.shape[0] or self._length + count > slot.capacity:
            raise IndexError(
                f"{ids.shape[0]} x {count} ids after {self._length} (allowed: {slot.ids.shape[0]} sequences of up to "
                f"{slot.capacity})"
            )
        if slot.padding is not None and self._length == 0:
            slot.padding.copy_(torch.zeros_like(slot.padding) if padding is None else padding)
        if count == 1:
            slot.ids.copy_(ids)
            logits = slot.step()
        else:
            logits = slot.prefill(ids, self._length)
        self._length += count
        return logits

    def keep(self, rows: list[int]) -> bool:
        """See `Decoding.keep`: a captured step has its batch."""
        return False


def capacity(length: int) -> int:
    """Tokens that a cache for `length` tokens has room for."""
    return max(1, -(-length // CAPACITY_STEP)) * CAPACITY_STEP
