"""Which output row of a linear feeds which input channel of a later one, found by probing.

On a sequence of one token an attention's output is linear in its values whatever the queries and keys, as act(gate) *
up is in up and relu(fc1) in positive scales of fc1. So every row of a candidate is multiplied by a factor of its own,
and the ratio of the reader's inputs with and without tells the row. One rule finds grouped queries, values interleaved
with queries and keys, latent attention, and the up half of a fused gate and up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from awqbench.quantization.absorb import Absorber, input_weight
from awqbench.quantization.calibrate import BlockCall

_MOST_SHARES = 3
_PROBES = 4  # tokens, each tried with both signs so that a ReLU opens for one of them


class _Stop(Exception):
    """Raised at the reader: what follows it doesn't matter."""


class RowMapper:
    """Probes a block, already copied and in high precision, with single tokens, a hidden state [tokens, width]."""

    def __init__(self, block: nn.Module, call: BlockCall, tokens: Tensor) -> None:
        self._block, self._call = block, call
        chosen = tokens[torch.linspace(0, len(tokens) - 1, min(_PROBES, len(tokens))).long()]
        self._tokens = [sign * token[None, None] for token in chosen for sign in (1, -1)]
        self._inputs: dict[tuple[str, int], Tensor | None] = {}

    def find(self, candidate: str, reader: str) -> Tensor | None:
        """The row of `candidate` behind each input channel of `reader` [in], int64; None where that isn't how it works.

        Channels that are zero for all tokens take the row that the others' common offset gives them, if they have one.
        """
        rows = input_weight(self._block, candidate).shape[0]
        inputs = input_weight(self._block, reader).shape[1]
        maps = (self._probe(candidate, reader, part, inputs) for part in _parts(rows, inputs))
        return next((found for found in maps if found is not None), None)

    def _probe(self, candidate: str, reader: str, part: Tensor, inputs: int) -> Tensor | None:
        """The map where only the rows in `part` play a role."""
        factors = torch.linspace(1.5, 3, len(part), dtype=torch.float64)  # 1 would mean no effect
        every = torch.ones(input_weight(self._block, candidate).shape[0], dtype=torch.float64)
        every[part] = factors
        linear = self._block.get_submodule(candidate)
        found = torch.full((inputs,), -1)
        for index in range(len(self._tokens)):
            before = self._input(reader, index)
            handle = linear.register_forward_hook(lambda _, __, output: output * every.to(output))
            try:
                after = self._run(reader, index)
            finally:
                handle.remove()
            if before is None or after is None or before.numel() != inputs:
                return None
            live = before.abs() > 1e-9 * before.abs().max()
            place = _place((after / before)[live].double().cpu(), factors)
            known = found[live]
            if place is None or not bool(((known < 0) | (known == part[place])).all()):
                return None
            found[live] = part[place]
            if index and bool((found >= 0).all()):
                break
        return _filled(found, len(every))

    def _input(self, reader: str, index: int) -> Tensor | None:
        key = reader, index
        if key not in self._inputs:
            self._inputs[key] = self._run(reader, index)
        return self._inputs[key]

    def _run(self, reader: str, index: int) -> Tensor | None:
        """The reader's input [in] for one token; None where it did not run."""
        seen: list[Tensor] = []

        def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.append(args[0].flatten().cpu())
            raise _Stop

        handle = self._block.get_submodule(reader).register_forward_pre_hook(stop)
        try:
            self._call(self._block, self._tokens[index])
        except _Stop:
            pass
        finally:
            handle.remove()
        return seen[0] if seen else None


def as_absorber(module: str, channels: Tensor, rows: int) -> Absorber:
    """The absorber for a map [in]; plain where it is the last `in` of its `rows`, in order."""
    last = torch.arange(rows - channels.numel(), rows)
    return Absorber(module, "rows", None if torch.equal(channels, last) else channels)


def _parts(rows: int, inputs: int) -> list[Tensor]:
    """Rows to probe together: all, or, of a whole number of times as many as are needed, one share: others may gate it.

    A share is a stretch of rows, the last first, or takes turns with the others.
    """
    every = torch.arange(rows)
    times, rest = divmod(rows, inputs)
    if rest or not 2 <= times <= _MOST_SHARES:
        return [every]
    stretches = [every[start : start + inputs] for start in range(0, rows, inputs)]
    return [every, *stretches[::-1], *(every[turn::times] for turn in range(times))]


def _place(ratio: Tensor, factors: Tensor) -> Tensor | None:
    """The index of the factor (evenly spaced, ascending) that each ratio equals; None if one equals none of them."""
    spacing = float(factors[1] - factors[0]) if len(factors) > 1 else 1.0
    place = ((ratio - factors[0]) / spacing).round().nan_to_num(-1.0)
    if not bool(((place >= 0) & (place < len(factors))).all()):
        return None
    index = place.long()
    return index if bool(((factors[index] - ratio).abs() < 0.1 * spacing).all()) else None


def _filled(found: Tensor, rows: int) -> Tensor | None:
    unknown = found < 0
    if not bool(unknown.any()):
        return found
    offsets = {int(row) - channel for channel, row in enumerate(found) if row >= 0}
    if len(offsets) != 1:
        return None
    filled = torch.arange(len(found)) + offsets.pop()
    return filled if int(filled[0]) >= 0 and int(filled[-1]) < rows else None
