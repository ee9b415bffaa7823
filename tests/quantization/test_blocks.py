from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from awqbench.errors import UserError
from awqbench.modeling.experts import unfuse_experts
from awqbench.quantization.blocks import (
    find_blocks,
    linears_of,
    routers,
    transpose_back,
    unreachable,
    untranspose,
)


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
    model = build("mixtral")
    name, blocks = find_blocks(model)
    assert "model.layers.0.mlp.experts.down_proj" in unreachable(blocks, name)
    unfuse_experts(model)
    assert unreachable(blocks, name) == [f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)]
    name, blocks = find_blocks(build("llama"))
    assert unreachable(blocks, name) == []


def test_a_linear_with_a_forward_of_its_own_is_no_plain_one() -> None:
    class Grouped(nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            """hidden [.., 2, 4]: a weight for each half of the outputs."""
            return (hidden.unsqueeze(-2) * self.weight.view(2, -1, 4)).sum(-1)

    class Written(nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            """hidden [.., 4]"""
            return hidden @ self.weight.T + self.bias

    kinds = {"grouped": Grouped(4, 6, bias=False), "plain": nn.Linear(4, 6), "written": Written(4, 6, device="meta")}
    blocks = nn.ModuleList([nn.ModuleDict(kinds)])
    assert list(linears_of(blocks, "layers")) == ["layers.0.plain", "layers.0.written"]
    assert unreachable(blocks, "layers") == ["layers.0.grouped.weight"]


def test_a_larger_vision_tower_is_not_taken_for_the_decoder(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("gemma3-vision")
    tower = model.get_submodule("model.vision_tower")
    name, blocks = find_blocks(model)
    assert (name, len(blocks)) == ("model.language_model.layers", 2)
    assert sum(p.numel() for p in tower.parameters()) > sum(p.numel() for p in blocks.parameters())
    ran: list[str] = []
    blocks.get_submodule("1").register_forward_hook(lambda *_: ran.append("text"))
    tower.register_forward_hook(lambda *_: ran.append("vision"))
    model(ids[:8].unsqueeze(0))
    assert ran == ["text"]


def test_routers_are_told_from_other_linears() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.shared_gate, self.mixer = nn.Linear(8, 3), nn.Linear(8, 1), nn.Linear(8, 8)
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 8)) for _ in range(3))

    block = nn.ModuleDict({"attention": nn.ModuleDict({"down": nn.Linear(8, 3)}), "mlp": Mixture()})
    assert routers(block, "layers.0") == ["layers.0.mlp.gate", "layers.0.mlp.shared_gate"]
    convolution = nn.ModuleDict({"conv": nn.Conv1d(8, 8, 4), "out": nn.Linear(8, 8)})
    assert routers(convolution, "") == []
