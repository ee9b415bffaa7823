from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from awqbench.quantization.absorb import scale_inputs
from awqbench.quantization.blocks import find_blocks, linear_at, linears_of
from awqbench.quantization.blockwise import Block, BlockResult, Recipe
from awqbench.quantization.calibrate import capture_blocks, cut_windows
from awqbench.quantization.groups import find_groups
from awqbench.quantization.losses import ModuleCalls, ModuleLoss
from awqbench.quantization.search import search_scale

AWQ = Recipe(method="awq", bits=4, group_size=32, clip=True, search="module", seed=0)


def _quantize_first_block(model: nn.Module, ids: torch.Tensor, recipe: Recipe = AWQ) -> BlockResult:
    name, blocks = find_blocks(model)
    hidden, calls = capture_blocks(model, blocks, cut_windows(ids, 4, 32))
    (stretch,), stretch_calls = capture_blocks(model, blocks, cut_windows(ids, 1, 16))
    block = Block(blocks[0], f"{name}.0", list(linears_of(blocks[0], "")), recipe)
    return block.calibrated(calls[0], hidden, stretch, stretch_calls[0])


def test_norm_times_weight_is_unchanged_by_search_and_folding(build: Callable[..., Any], ids: torch.Tensor) -> None:
    """An implementation that keeps an alias of the weights as "the originals" destroys the model here."""
    model = build("llama")
    _, blocks = find_blocks(model)
    block = blocks[0]
    (hidden,), (call, *_) = capture_blocks(model, blocks, cut_windows(ids, 1, 32))
    group = find_groups(block, call, hidden, list(linears_of(block, "")))[0]
    linears = [linear_at(block, name) for name in group.readers]
    before = {name: value.clone() for name, value in block.state_dict().items()}
    calls = ModuleCalls()
    handle = block.self_attn.register_forward_pre_hook(calls.record, with_kwargs=True)
    call(block, hidden)
    handle.remove()
    magnitude = block.input_layernorm(hidden).abs().mean(dim=(0, 1))
    loss = ModuleLoss(block.self_attn, calls, linears)
    scaling = search_scale([linear.weight.data for linear in linears], magnitude, loss, 4, 32)
    assert scaling is not None
    assert scaling.ratio > 0
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())

    assert group.absorber is not None
    group.absorber.divide(block, scaling.scale)
    scale_inputs(block, group.readers, scaling.scale)
    assert not torch.equal(block.input_layernorm.weight, before["input_layernorm.weight"])
    for name in group.readers:
        product = block.input_layernorm.weight * linear_at(block, name).weight
        expected = before["input_layernorm.weight"] * before[f"{name}.weight"]
        assert torch.allclose(product, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("search", ["module", "gram"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi3", "cohere"])
def test_no_group_gets_worse_and_outputs_get_better(
    build: Callable[..., Any], ids: torch.Tensor, architecture: str, search: Any
) -> None:
    result = _quantize_first_block(build(architecture), ids, Recipe("awq", 3, 32, True, search, 0))
    searched = [group for group in result.groups if group["absorber"]]
    assert all(group["loss"] <= group["loss_unscaled"] for group in searched)
    assert any(group["status"] == "scaled" for group in searched)
    errors = [(row["output_error"], row["output_error_rtn"]) for row in result.linears]
    assert sum(error for error, _ in errors) < sum(nearest for _, nearest in errors)


def test_reported_errors_are_those_of_the_function_not_of_the_folded_weights(
    build: Callable[..., Any], ids: torch.Tensor
) -> None:
    model = build("llama")
    name, blocks = find_blocks(model)
    block, original = blocks[0], {k: v.clone() for k, v in blocks[0].state_dict().items()}
    up = {row["name"]: row for row in _quantize_first_block(model, ids).linears}[f"{name}.0.mlp.up_proj"]
    columns = original["post_attention_layernorm.weight"] / block.post_attention_layernorm.weight
    stored, weight = block.mlp.up_proj.weight / columns, original["mlp.up_proj.weight"]
    # The rows were divided by down_proj's scale: undo that with the scale that fits the rows best.
    rows = (stored * weight).sum(1, keepdim=True) / stored.square().sum(1, keepdim=True)
    assert up["weight_error"] == pytest.approx(float((stored * rows - weight).norm() / weight.norm()), rel=0.05)
    assert up["tokens"] == 128
    assert up["shape"] == [128, 64]


def test_the_block_is_left_fake_quantized(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama")
    result = _quantize_first_block(model, ids)
    assert len(result.quantized) == 7
    for name, tensor in result.quantized.items():
        assert torch.equal(linear_at(model, name).weight, tensor.dequantize())


def test_queries_and_keys_are_never_clipped(build: Callable[..., Any], ids: torch.Tensor) -> None:
    with_clip = _quantize_first_block(build("llama"), ids).quantized
    without = _quantize_first_block(build("llama"), ids, Recipe("awq", 4, 32, False, "module", 0)).quantized
    same = {name for name in with_clip if torch.equal(with_clip[name].scales, without[name].scales)}
    assert same == {f"model.layers.0.self_attn.{name}" for name in ("q_proj", "k_proj")}


def test_a_dead_channel_and_an_outlier_of_1e4_are_survived(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama", attention_bias=True)
    with torch.no_grad():
        norm = model.model.layers[0].input_layernorm.weight
        norm[3] = 0.0
        norm[5] = 1e4
        model.model.layers[0].mlp.down_proj.weight[:, 7] = 0.0
        model.model.layers[0].mlp.gate_proj.weight[2] = 0.0
    result = _quantize_first_block(model, ids)
    assert result.warnings == []
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(row["output_error"] < 0.5 for row in result.linears)


def test_activations_that_are_not_finite_skip_the_groups_by_name(
    build: Callable[..., Any], ids: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[0].post_attention_layernorm.weight[0] = torch.inf
    with caplog.at_level(logging.WARNING):
        result = _quantize_first_block(model, ids)
    assert any("mlp.gate_proj, model.layers.0.mlp.up_proj" in warning for warning in result.warnings)
    assert result.warnings == [record.getMessage() for record in caplog.records]
    assert len(result.quantized) == 7


def test_rounding_to_nearest_needs_no_calibration(build: Callable[..., Any]) -> None:
    model = build("llama")
    _, blocks = find_blocks(model)
    recipe = Recipe("rtn", 4, 32, False, "module", 0)
    result = Block(blocks[0], "model.layers.0", list(linears_of(blocks[0], "")), recipe).round_to_nearest()
    assert result.groups == []
    assert all(row["weight_error"] == row["weight_error_rtn"] > 0 and row["tokens"] == 0 for row in result.linears)
