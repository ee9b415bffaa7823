"""Linears that read the same tensor multiply together: q, k and v, gate and up, or whatever else a model has.

Which do is seen in one forward pass, by the identity of the tensor they are given; names decide nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from awqbench.ops.linear import QuantizedLinear
from awqbench.ops.shared import SharedWeight, scheme

TOKENS = 4


def merge_linears(model: Any) -> list[SharedWeight]:
    """Give packed linears of the kernel `cuda` that read the same tensor one weight, where their schemes agree.

    The former memory is freed; each linear can still be used by itself, and comes back to the bit from `to_quantized`.
    """
    sets: dict[tuple[Any, ...], list[QuantizedLinear]] = {}
    for number, readers in enumerate(reading_together(model)):
        for linear in readers:
            sets.setdefault((number, *scheme(linear)), []).append(linear)
    return [_shared(parts) for parts in sets.values() if len(parts) > 1]


def _shared(parts: list[QuantizedLinear]) -> SharedWeight:
    there = parts[0].shared
    return there if there is not None and there.is_of(parts) else SharedWeight(parts)


def part(model: nn.Module) -> None:
    """Undo `merge_linears`: each linear multiplies by itself again, from the memory where its weight lies now."""
    for linear in _packed(model):
        linear.share(None)


def reading_together(model: Any) -> list[list[QuantizedLinear]]:
    """Packed linears of the kernel `cuda` that one forward pass gave the same unchanged tensor, in the order of calls.

    A linear that was called more than once is in none.
    """
    calls: list[tuple[Tensor, int, QuantizedLinear]] = []  # holds the tensors: an identity is not given twice

    def seen(linear: QuantizedLinear, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["x"]
        calls.append((x, x._version, linear))

    handles = [linear.register_forward_pre_hook(seen, with_kwargs=True) for linear in _packed(model)]
    ids = torch.arange(1, 1 + TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    times: dict[int, int] = {}
    for _, _, linear in calls:
        times[id(linear)] = times.get(id(linear), 0) + 1
    groups: dict[tuple[int, int], list[QuantizedLinear]] = {}
    for x, version, linear in calls:
        if times[id(linear)] == 1:
            groups.setdefault((id(x), version), []).append(linear)
    return [group for group in groups.values() if len(group) > 1]


def _packed(model: nn.Module) -> list[QuantizedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantizedLinear) and module.kernel == "cuda"]
