from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awqbench.modeling.experts import unfuse_experts
from awqbench.quantization.absorb import scale_inputs
from awqbench.quantization.blocks import find_blocks, linear_at, linears_of
from awqbench.quantization.blockwise import Block, BlockResult
from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.groups import find_groups
from awqbench.quantization.losses import ModuleCalls, ModuleLoss
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.search import search_scale

AWQ = Recipe(method="awq", group_size=32, search="module")
BOTH = Recipe(method="awq+gptq", group_size=32)

Quantize = Callable[..., BlockResult]


@pytest.fixture
def quantize(capture: Callable[..., Any], ids: Tensor) -> Quantize:
    """A function that quantizes a model's first block on four windows of 32 tokens, two a batch."""

    def run(
        model: nn.Module, recipe: Recipe = AWQ, emit: Callable[[Tensor], None] | None = None, **options: Any
    ) -> Any:
        unfuse_experts(model)
        name, blocks = find_blocks(model)
        windows = cut_windows(ids, 4, 32).ids
        hidden, calls = capture(model, blocks, windows[:2])
        batches = [hidden[0], capture(model, blocks, windows[2:])[0][0]]
        block = Block(blocks[0], f"{name}.0", list(linears_of(blocks[0], "")), recipe, **options)
        return block.calibrated(calls[0], batches, emit or (lambda _: None))

    return run


def test_norm_times_weight_is_unchanged_by_search_and_folding(
    build: Callable[..., Any], capture: Callable[..., Any], ids: Tensor
) -> None:
    """An implementation that keeps an alias of the weights as "the originals" destroys the model here."""
    model = build("llama")
    _, blocks = find_blocks(model)
    block = blocks[0]
    (hidden, *_), (calls, *_) = capture(model, blocks, cut_windows(ids, 1, 32).ids)
    group = find_groups(block, calls, hidden, list(linears_of(block, "")))[0]
    linears = [linear_at(block, name) for name in group.readers]
    before = {name: value.clone() for name, value in block.state_dict().items()}
    seen = ModuleCalls()
    handle = block.self_attn.register_forward_hook(seen.record, with_kwargs=True)
    calls.full(block, hidden)
    handle.remove()
    magnitude = block.input_layernorm(hidden).abs().mean(dim=(0, 1))
    loss = ModuleLoss(block.self_attn, seen, linears)
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
    build: Callable[..., Any], quantize: Quantize, architecture: str, search: Any
) -> None:
    result = quantize(build(architecture), Recipe(method="awq", bits=3, group_size=32, search=search))
    searched = [group for group in result.groups if group["absorber"]]
    assert all(group["loss"] <= group["loss_unscaled"] for group in searched)
    assert any(group["status"] == "scaled" for group in searched)
    errors = [(row["output_error"], row["output_error_rtn"]) for row in result.linears]
    assert sum(error for error, _ in errors) < sum(nearest for _, nearest in errors)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("group_size", "symmetric"), [(16, False), (-1, True)])
def test_compensation_leaves_no_linear_worse_than_without(
    build: Callable[..., Any], quantize: Quantize, bits: int, group_size: int, symmetric: bool
) -> None:
    options: dict[str, Any] = {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    for with_it, without in (("gptq", "rtn"), ("awq+gptq", "awq")):
        one, other = (
            {row["name"]: row for row in quantize(build("llama"), Recipe(method=method, **options)).linears}
            for method in (with_it, without)
        )
        assert set(one) == set(other)
        assert all(one[name]["output_mse"] <= other[name]["output_mse"] * 1.0001 for name in one)
        total, before = (sum(row["output_mse"] for row in rows.values()) for rows in (one, other))
        assert total < 0.95 * before


def test_every_batchs_full_precision_output_is_emitted_in_order(
    build: Callable[..., Any], quantize: Quantize, capture: Callable[..., Any], ids: Tensor
) -> None:
    outputs: list[Tensor] = []
    quantize(build("llama"), BOTH, outputs.append)
    model = build("llama")
    hidden, _ = capture(model, find_blocks(model)[1], cut_windows(ids, 4, 32).ids)
    assert torch.allclose(torch.cat(outputs), hidden[1], atol=1e-5)


def test_reported_errors_are_those_of_the_function_not_of_the_folded_weights(
    build: Callable[..., Any], quantize: Quantize
) -> None:
    model = build("llama")
    name, blocks = find_blocks(model)
    block, original = blocks[0], {k: v.clone() for k, v in blocks[0].state_dict().items()}
    up = {row["name"]: row for row in quantize(model).linears}[f"{name}.0.mlp.up_proj"]
    columns = original["post_attention_layernorm.weight"] / block.post_attention_layernorm.weight
    stored, weight = block.mlp.up_proj.weight / columns, original["mlp.up_proj.weight"]
    # The rows were divided by down_proj's scale: undo that with the scale that fits the rows best.
    rows = (stored * weight).sum(1, keepdim=True) / stored.square().sum(1, keepdim=True)
    assert up["weight_error"] == pytest.approx(float((stored * rows - weight).norm() / weight.norm()), rel=0.05)
    assert (up["tokens"], up["shape"], up["bits"]) == (128, [128, 64], 4)


@pytest.mark.parametrize("recipe", [AWQ, BOTH])
def test_the_block_is_left_fake_quantized(build: Callable[..., Any], quantize: Quantize, recipe: Recipe) -> None:
    model = build("llama")
    result = quantize(model, recipe)
    assert len(result.quantized) == 7
    for name, tensor in result.quantized.items():
        assert torch.equal(linear_at(model, name).weight, tensor.dequantize())


def test_the_same_twice(build: Callable[..., Any], quantize: Quantize) -> None:
    one, other = quantize(build("llama"), BOTH), quantize(build("llama"), BOTH)
    for name, tensor in one.quantized.items():
        assert torch.equal(tensor.codes, other.quantized[name].codes)
        assert torch.equal(tensor.scales, other.quantized[name].scales)
    assert (one.linears, one.groups) == (other.linears, other.groups)


@pytest.mark.parametrize("architecture", ["llama", "opt"])  # OPT: rows absorbed by linears with a bias
def test_parameters_that_others_share_are_not_written_to(
    build: Callable[..., Any], quantize: Quantize, architecture: str
) -> None:
    model = build(architecture)
    shared = {name: parameter.data for name, parameter in model.named_parameters()}
    before = {name: value.clone() for name, value in shared.items()}
    quantize(model, BOTH)
    assert all(torch.equal(value, before[name]) for name, value in shared.items())


def test_queries_and_keys_are_never_clipped(build: Callable[..., Any], quantize: Quantize) -> None:
    with_clip = quantize(build("llama")).quantized
    without = quantize(build("llama"), Recipe(method="awq", group_size=32, search="module", clip=False)).quantized
    same = {name for name in with_clip if torch.equal(with_clip[name].scales, without[name].scales)}
    assert same == {f"model.layers.0.self_attn.{name}" for name in ("q_proj", "k_proj")}


@pytest.mark.parametrize("recipe", [AWQ, BOTH])
def test_a_dead_channel_and_an_outlier_of_1e4_are_survived(
    build: Callable[..., Any], quantize: Quantize, recipe: Recipe
) -> None:
    model = build("llama", attention_bias=True)
    with torch.no_grad():
        norm = model.model.layers[0].input_layernorm.weight
        norm[3] = 0.0
        norm[5] = 1e4
        model.model.layers[0].mlp.down_proj.weight[:, 7] = 0.0
        model.model.layers[0].mlp.gate_proj.weight[2] = 0.0
    result = quantize(model, recipe)
    assert result.warnings == []
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(row["output_error"] < 0.5 for row in result.linears)


@pytest.mark.parametrize("method", ["awq", "awq+gptq", "gptq"])
def test_activations_that_are_not_finite_skip_the_groups_by_name(
    build: Callable[..., Any], quantize: Quantize, caplog: pytest.LogCaptureFixture, method: Any
) -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[0].post_attention_layernorm.weight[0] = torch.inf
    with caplog.at_level(logging.WARNING):
        result = quantize(model, Recipe(method=method, group_size=32))
    assert any("mlp.gate_proj, model.layers.0.mlp.up_proj" in warning for warning in result.warnings)
    assert result.warnings == [record.getMessage() for record in caplog.records]
    assert len(result.quantized) == 7


def test_rounding_to_nearest_needs_no_calibration(build: Callable[..., Any]) -> None:
    model = build("llama")
    _, blocks = find_blocks(model)
    recipe = Recipe(method="rtn", group_size=32)
    result = Block(blocks[0], "model.layers.0", list(linears_of(blocks[0], "")), recipe).round_to_nearest()
    assert result.groups == []
    assert all(row["weight_error"] == row["weight_error_rtn"] > 0 and row["tokens"] == 0 for row in result.linears)


def test_experts_count_their_own_tokens_and_one_without_any_is_named(
    build: Callable[..., Any], quantize: Quantize
) -> None:
    model = build("qwen3-moe", num_experts_per_tok=1)
    with torch.no_grad():
        router = model.model.layers[0].mlp.gate.weight
        router[1] = -router[0]  # one of the two is always preferred
        router[2:] = 0.0
    result = quantize(model, BOTH)
    rows = {row["name"].rpartition("mlp.")[2]: row for row in result.linears if ".mlp." in row["name"]}
    counts = {expert: rows[f"experts.{expert}.up_proj"]["tokens"] for expert in range(4)}
    assert sum(counts.values()) == 128
    assert (counts[2], counts[3]) == (0, 0)
    for expert in (2, 3):
        assert any(f"experts.{expert}.gate_proj" in warning for warning in result.warnings)
        assert rows[f"experts.{expert}.up_proj"]["errors_on"] == "its group's tokens"
        assert rows[f"experts.{expert}.up_proj"]["output_error"] is not None
        assert rows[f"experts.{expert}.down_proj"]["output_error"] is None
    assert len(result.quantized) == 4 + 4 * 3
    groups = [group for group in result.groups if group["scaled_along"]]
    assert groups[0]["scaled_along"] == ["model.layers.0.mlp.gate"]


def test_sensitivity_reports_each_linear_and_hands_out_the_folded_weights(
    build: Callable[..., Any], quantize: Quantize
) -> None:
    model = build("llama")
    result = quantize(model, BOTH, sensitivity=True)
    assert set(result.folded) == set(result.quantized)
    errors = {row["name"]: row["block_error"] for row in result.linears}
    assert all(error > 0 for error in errors.values())
    for name, weight in result.folded.items():
        assert (weight - result.quantized[name].dequantize()).norm() < 0.5 * weight.norm()
    # With all folded weights in place of the rounded ones the block is the original again.
    original = build("llama").model.layers[0]
    block = model.model.layers[0]
    for name, weight in result.folded.items():
        linear_at(model, name).weight.data = weight
    inputs = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
    norm, up, down = block.post_attention_layernorm, block.mlp.up_proj, block.mlp.down_proj
    expected = original.mlp(original.post_attention_layernorm(inputs))
    assert torch.allclose(block.mlp(norm(inputs)), expected, rtol=1e-3, atol=1e-4)
    assert up.weight.dtype == down.weight.dtype == torch.float32
    assert quantize(build("llama"), BOTH).folded == {}
