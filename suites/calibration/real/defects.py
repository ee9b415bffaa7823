"""Defects of known kind and size, planted into a loaded causal LM in full precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from awqbench.errors import UserError
from awqbench.quantization.blocks import find_blocks, linears_of
from awqbench.quantization.rounding import fake_quantize


def round_layer(model: Any, layer: int, bits: int = 2, group_size: int = 64) -> dict[str, float]:
    """Round every linear of one decoder layer to the nearest of 2**bits values per group, asymmetric, in place.

    A linear whose input the group size does not divide has one group per row. Returns each linear's relative error,
    the norm of the change over that of the weight. Raises UserError for a layer that is not there.
    """
    name, blocks = find_blocks(model)
    errors = {}
    for linear_name, linear in linears_of(_block(blocks, layer), f"{name}.{layer}").items():
        weight = linear.weight.detach()
        size = group_size if weight.shape[1] % group_size == 0 else weight.shape[1]
        rounded = fake_quantize(weight, bits, size)
        errors[linear_name] = float((rounded - weight).norm() / weight.norm())
        linear.weight.data.copy_(rounded)
    return errors


def zero_head(model: Any, layer: int, head: int) -> dict[str, float]:
    """Zero what one attention head adds: its columns of o_proj's weight [hidden, heads * head_dim], in place.

    Returns the share of o_proj's squared norm that went. Raises UserError for a head that is not there.
    """
    _, blocks = find_blocks(model)
    weight = _block(blocks, layer).get_parameter("self_attn.o_proj.weight")
    heads = model.config.num_attention_heads
    if not 0 <= head < heads:
        raise UserError(f"no head {head} (allowed: 0 to {heads - 1})")
    width = weight.shape[1] // heads
    columns = weight.data[:, head * width : (head + 1) * width]
    share = float(columns.square().sum() / weight.data.square().sum())
    columns.zero_()
    return {"share of o_proj's squared norm": share}


def untie(model: Any) -> None:
    """Give the output layer weights of its own, so that a change of the input embedding leaves it alone."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def shift_rows(model: Any, rows: list[int], direction: Tensor, size: float) -> None:
    """Move input embeddings along `direction` [rows, hidden] by `size` times each row's own norm, in place.

    The output layer is untied first: the tokens are read differently, and predicted as before.
    """
    untie(model)
    weight = model.get_input_embeddings().weight.data
    old = weight[rows]
    unit = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-12)
    weight[rows] = old + size * old.norm(dim=1, keepdim=True) * unit


def noise(model: Any, rows: list[int], seed: int) -> Tensor:
    """A random direction [rows, hidden] for each row."""
    hidden = model.get_input_embeddings().weight.shape[1]
    return torch.randn(len(rows), hidden, generator=torch.Generator().manual_seed(seed))


def _block(blocks: nn.ModuleList, layer: int) -> nn.Module:
    if not 0 <= layer < len(blocks):
        raise UserError(f"no layer {layer} (allowed: 0 to {len(blocks) - 1})")
    return blocks[layer]
