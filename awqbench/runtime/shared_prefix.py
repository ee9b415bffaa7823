"""Inputs that begin alike, through the model's own forward pass: their beginning once, then only what follows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from awqbench.runtime.describe import full_sight
from awqbench.runtime.grouping import Batch, Ids, Pass
from awqbench.runtime.probe import NotDescribed
from awqbench.runtime.prove import TOLERANCES, compare, refusing

log = logging.getLogger(__name__)

# The proof: prefixes of so many tokens, which of them each row follows, and by how many tokens. A prefix serves several
# rows, in another order than the prefixes', rows are padded, and a cache serves several batches.
PREFIX = 9
ROWS = ((1, 5), (0, 3), (1, 1), (0, 2))
PIECES = (slice(0, 3), slice(3, 4), slice(1, 3))


class SharedPrefix:
    """The prefixes of one model's inputs.

    Prefixes of a batch are equally long and nothing is padded on the left, so positions, masks and windows are those
    that the model makes itself for a prompt that goes on. Keys and values are kept of the prefixes alone, until their
    batch is done: each layer repeats its own for the time of its attention.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self._device = model, device

    @cached_property
    def limit(self) -> int:
        """Tokens that an input may have for its prefix to be shared; 0 where the model does not bear it, which is found
        when first asked for: logits of random tokens must be the model's own."""
        try:
            with torch.no_grad(), refusing():
                return self._proved()
        except NotDescribed as reason:
            log.warning("sequences are scored from their first token on, each by itself: %s", reason)
            return 0

    def passes(self, batch: Batch, each: Pass) -> Iterator[tuple[Ids, Tensor]]:
        """Each input of a batch with the logits [rows, vocabulary] of what follows its prefix; rows past its length
        mean nothing."""
        cache = self.keep([group[0][: batch.prefix] for group in batch.groups])
        for piece in batch.pieces(each):
            owners, inputs = zip(*piece, strict=True)
            suffixes = [ids[batch.prefix :] for ids in inputs]
            yield from zip(inputs, self.follow(cache, batch.prefix, owners, suffixes), strict=True)

    def keep(self, prefixes: Sequence[Ids]) -> Any:
        """The model's cache after equally long prefixes. Raises NotDescribed for more than keys and values in it."""
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        output = self.model(input_ids=torch.tensor(prefixes, device=self._device), use_cache=True, logits_to_keep=1)
        cache = getattr(output, "past_key_values", None)
        if not (layers := getattr(cache, "layers", None)):
            raise NotDescribed("it keeps no keys and values")
        for number, layer in enumerate(layers):
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise NotDescribed(f"layer {number} keeps more than keys and values ({type(layer).__name__})")
        return cache

    def follow(self, cache: Any, prefix: int, owners: Sequence[int], suffixes: Sequence[Ids]) -> Tensor:
        """Logits [rows, longest, vocabulary] of suffixes, row i behind the cached prefix owners[i], of `prefix` tokens.
        The cache stays as it was."""
        rows = torch.tensor(owners, device=self._device)
        for layer in cache.layers:
            layer.update = partial(_behind, layer.keys, layer.values, rows)
        ids, mask = padded(suffixes)
        if mask is not None:
            mask = torch.nn.functional.pad(mask, (prefix, 0), value=1).to(self._device)
        output = self.model(input_ids=ids.to(self._device), attention_mask=mask, past_key_values=cache, use_cache=True)
        return cast(Tensor, output.logits)

    def _proved(self) -> int:
        config = self.model.config.get_text_config()
        if (limit := _limit(config)) < PREFIX + max(length for _, length in ROWS):
            raise NotDescribed(f"it sees {limit} tokens at a time")
        if self.model.dtype not in TOLERANCES:
            raise NotDescribed(f"the model computes in {str(self.model.dtype).removeprefix('torch.')}")
        generator = torch.Generator().manual_seed(0)

        def some(count: int) -> Ids:
            return tuple(torch.randint(0, int(config.vocab_size), (count,), generator=generator).tolist())

        prefixes = [some(PREFIX) for _ in range(2)]
        rows = [(owner, some(length)) for owner, length in ROWS]
        cache = self.keep(prefixes)
        for piece in PIECES:
            owners, suffixes = zip(*rows[piece], strict=True)
            found = self.follow(cache, PREFIX, owners, suffixes)
            for logits, owner, suffix in zip(found, owners, suffixes, strict=True):
                whole = torch.tensor([[*prefixes[owner], *suffix]], device=self._device)
                own = self.model(input_ids=whole, use_cache=False).logits[0, PREFIX:]
                compare(logits[: len(suffix)].float(), own.float(), TOLERANCES[self.model.dtype])
        return limit


def _behind(
    kept: Tensor, values: Tensor, rows: Tensor, new: Tensor, more: Tensor, *_: Any, **__: Any
) -> tuple[Any, ...]:
    """A cache layer's `update` that stores nothing: the rows' kept keys and values with the new ones behind them."""
    return torch.cat([kept[rows], new], -2), torch.cat([values[rows], more], -2)


def _limit(config: Any) -> int:
    """Tokens up to which what a prefix leaves behind does not depend on what follows: a window or chunk ends there, or
    rotary angles change (longrope; dynamic NTK at max_position_embeddings)."""
    limits = [full_sight(config)]
    waiting = [config.to_dict()]
    while waiting:
        for key, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append(value)
            elif key == "original_max_position_embeddings" and value:
                limits.append(int(value))
    return min(limits)


def padded(inputs: Sequence[Ids]) -> tuple[Tensor, Tensor | None]:
    """Ids [inputs, longest] filled up on the right, and the mask that says where, if anywhere."""
    ids = torch.zeros(len(inputs), max(map(len, inputs)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(inputs):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, None if bool(mask.all()) else mask
