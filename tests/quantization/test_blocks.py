from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError
from awqbench.quantization.blocks import find_blocks, linears_of, transpose_back, unreachable, untranspose


@pytest.mark.parametrize(
    ("architecture", "stack"),
    [
        ("llama", "model.layers"),
        ("opt", "model.decoder.layers"),
        ("neox", "gpt_neox.layers"),
        ("gpt2", "transformer.h"),
    ],
)
def test_the_stack_is_found_by_structure(build: Callable[..., Any], architecture: str, stack: str) -> None:
    name, blocks = find_blocks(build(architecture))
    assert (name, len(blocks)) == (stack, 2)


def test_more_experts_than_blocks_do_not_confuse_it() -> None:
    block = nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(8, 8) for _ in range(9)), "norm": nn.LayerNorm(8)})
    assert find_blocks(nn.ModuleDict({"layers": nn.ModuleList([block, block])}))[0] == "layers"


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="Linear has no stack of decoder blocks"):
        find_blocks(nn.Linear(8, 8))


def test_lm_head_is_no_linear_of_the_blocks(build: Callable[..., Any]) -> None:
    name, blocks = find_blocks(build("llama"))
    names = list(linears_of(blocks, name))
    assert len(names) == 14
    assert names[0] == "model.layers.0.self_attn.q_proj"


def test_transposed_linears_become_plain_ones_and_back(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("gpt2")
    batch = ids[:16].unsqueeze(0)
    expected, state = model(batch).logits, {name: value.clone() for name, value in model.state_dict().items()}
    names = untranspose(model)
    assert len(names) == 8
    assert torch.allclose(model(batch).logits, expected, atol=1e-5)
    transpose_back(model, names)
    assert isinstance(model.get_submodule(names[0]), Conv1D)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_fused_experts_are_named_as_out_of_reach(build: Callable[..., Any]) -> None:
    name, blocks = find_blocks(build("mixtral"))
    assert "model.layers.0.mlp.experts.down_proj" in unreachable(blocks, name)
    name, blocks = find_blocks(build("llama"))
    assert unreachable(blocks, name) == []
