"""Round the linears that read one input: choose the number grid, then take nearest or compensated codes."""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.quantization.clip import clip_weight
from awqbench.quantization.compensate import compensate, shrinkage
from awqbench.quantization.moments import Moments
from awqbench.quantization.ranges import fit_ranges
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.rounding import grid, quantize_on
from awqbench.quantization.tensor import QuantizedTensor

# The product of queries and keys amplifies a clipped weight's error: the reference implementations leave them alone.
_NEVER_CLIPPED = ("q_", "k_", "qkv", "query", "key", "wqkv", "c_attn")


def round_share(
    weights: dict[str, Tensor], moments: Moments, recipe: Recipe
) -> tuple[dict[str, QuantizedTensor], list[str]]:
    """Codes for weights [out, in] float32 whose common input has these moments; warnings."""
    size = recipe.group(moments.channels)
    # One matrix for all: the loops over channels and trials cost the same for any number of rows.
    whole = torch.cat(list(weights.values()))
    rounded_from = whole
    if not (recipe.scales and recipe.clip):
        step, zero = grid(whole.view(len(whole), -1, size), recipe.bits, recipe.symmetric)
    elif recipe.search == "gram":
        step, zero = fit_ranges(whole, moments, recipe.bits, size, recipe.symmetric)
    else:
        rounded_from = _clipped(weights, moments, recipe, size)
        step, zero = grid(rounded_from.view(len(whole), -1, size), recipe.bits, recipe.symmetric)
    rounded = quantize_on(rounded_from, step, zero, recipe.bits)
    warnings = []
    if recipe.compensates:
        wanted = shrinkage(moments, recipe.damping)
        rounded, damping = compensate(whole, rounded, moments, wanted)
        if damping > wanted:
            warnings.append(f"the Gram matrix of their input is near singular; damping raised to {damping:g}")
    return _parted(rounded, {name: weight.shape[0] for name, weight in weights.items()}), warnings


def never_clipped(name: str) -> bool:
    """Whether a linear makes queries or keys."""
    return name.rpartition(".")[2].lower().startswith(_NEVER_CLIPPED)


def _clipped(weights: dict[str, Tensor], moments: Moments, recipe: Recipe, size: int) -> Tensor:
    """The linears one above the other, clipped as the paper's code does it."""
    grams = moments.blocks(size)
    return torch.cat(
        [
            weight if never_clipped(name) else clip_weight(weight, grams, recipe.bits, size, recipe.symmetric)
            for name, weight in weights.items()
        ]
    )


def _parted(whole: QuantizedTensor, rows: dict[str, int]) -> dict[str, QuantizedTensor]:
    """The linears that stand one above the other in `whole`, given each one's number of rows."""
    parts = [torch.split(tensor, list(rows.values())) for tensor in (whole.codes, whole.scales, whole.zeros)]
    return {
        name: QuantizedTensor(codes.contiguous(), scales.contiguous(), zeros.contiguous(), whole.bits, whole.group_size)
        for name, codes, scales, zeros in zip(rows, *parts, strict=True)
    }
