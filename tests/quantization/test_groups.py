from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from awqbench.quantization.absorb import Absorber, Prover, scale_inputs
from awqbench.quantization.blocks import find_blocks, linears_of, untranspose
from awqbench.quantization.calibrate import capture_blocks, cut_windows
from awqbench.quantization.groups import Group, find_groups, shared_inputs

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
UP_DOWN = (("mlp.down_proj",), "mlp.up_proj", "rows", "mlp.down_proj")
V_O = (("self_attn.o_proj",), "self_attn.v_proj", "rows", "self_attn.o_proj")

# By architecture: readers, absorber, its form, the module inspected.
EXPECTED: dict[str, list[tuple[tuple[str, ...], str | None, str, str]]] = {
    "llama": [
        (QKV, "input_layernorm", "weight", "self_attn"),
        (("self_attn.o_proj",), None, "", ""),  # grouped queries: one value channel feeds several inputs
        (GATE_UP, "post_attention_layernorm", "weight", "mlp"),
        UP_DOWN,
    ],
    "llama-mha": [
        (QKV, "input_layernorm", "weight", "self_attn"),
        V_O,
        (GATE_UP, "post_attention_layernorm", "weight", "mlp"),
        UP_DOWN,
    ],
    "qwen2": [
        (QKV, "input_layernorm", "weight", "self_attn"),
        (("self_attn.o_proj",), None, "", ""),
        (GATE_UP, "post_attention_layernorm", "weight", "mlp"),
        UP_DOWN,
    ],
    "gemma2": [
        (QKV, "input_layernorm", "1 + weight", "self_attn"),
        (("self_attn.o_proj",), None, "", ""),
        (GATE_UP, "pre_feedforward_layernorm", "1 + weight", "mlp"),
        UP_DOWN,
    ],
    "neox": [
        (("attention.query_key_value",), "input_layernorm", "weight", "attention"),
        (("attention.dense",), None, "", ""),  # values are interleaved with queries and keys
        (("mlp.dense_h_to_4h",), "post_attention_layernorm", "weight", "mlp"),
        (("mlp.dense_4h_to_h",), None, "", ""),  # GELU does not scale
    ],
    "opt": [
        (QKV, "self_attn_layer_norm", "weight", "self_attn"),
        (("self_attn.out_proj",), "self_attn.v_proj", "rows", "self_attn.out_proj"),
        (("fc1",), "final_layer_norm", "weight", "fc1"),
        (("fc2",), "fc1", "rows", "fc2"),  # ReLU does
    ],
    "phi3": [
        (("self_attn.qkv_proj",), "input_layernorm", "weight", "self_attn"),
        (("self_attn.o_proj",), "self_attn.qkv_proj", "rows", "self_attn.o_proj"),
        (("mlp.gate_up_proj",), "post_attention_layernorm", "weight", "mlp"),
        (("mlp.down_proj",), "mlp.gate_up_proj", "rows", "mlp.down_proj"),
    ],
    "olmo2": [(QKV, None, "", ""), V_O, (GATE_UP, None, "", ""), UP_DOWN],  # norms stand after attention and MLP
    "gpt2": [
        (("attn.c_attn",), "ln_1", "weight", "attn"),
        (("attn.c_proj",), "attn.c_attn", "rows", "attn.c_proj"),
        (("mlp.c_fc",), "ln_2", "weight", "mlp"),
        (("mlp.c_proj",), None, "", ""),
    ],
    "cohere": [  # attention and MLP in parallel behind one norm: judged by the whole block
        ((*QKV, *GATE_UP), "input_layernorm", "weight", ""),
        (("self_attn.o_proj",), None, "", ""),
        UP_DOWN,
    ],
    "mixtral": [
        (QKV, "input_layernorm", "weight", "self_attn"),
        (("self_attn.o_proj",), None, "", ""),
    ],
}


@pytest.mark.parametrize("architecture", EXPECTED)
def test_groups_are_found_and_folding_them_preserves_the_function(
    build: Callable[..., Any], ids: torch.Tensor, architecture: str
) -> None:
    model = build(architecture)
    untranspose(model)
    batch = ids[:40].unsqueeze(0)
    expected = model(batch).logits
    _, blocks = find_blocks(model)
    (hidden,), calls = capture_blocks(model, blocks, cut_windows(ids, 1, 16))
    generator = torch.Generator().manual_seed(5)
    for block, call in zip(blocks, calls, strict=True):
        with torch.no_grad():
            following = call(block, hidden)
            groups = find_groups(block, call, hidden, list(linears_of(block, "")))
        assert [_summary(group) for group in groups] == EXPECTED[architecture]
        for group in groups:
            if group.absorber:
                scale = 0.25 + 4 * torch.rand(block.get_submodule(group.readers[0]).in_features, generator=generator)
                group.absorber.divide(block, scale)
                scale_inputs(block, group.readers, scale)
        hidden = following
    error = (model(batch).logits - expected).norm() / expected.norm()
    assert error < 1e-5


def test_a_group_with_a_reader_in_full_precision_is_not_scaled(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama")
    _, blocks = find_blocks(model)
    (hidden,), calls = capture_blocks(model, blocks, cut_windows(ids, 1, 16))
    names = [name for name in linears_of(blocks[0], "") if name != "self_attn.k_proj"]
    with torch.no_grad():
        group = find_groups(blocks[0], calls[0], hidden, names)[0]
    assert group.readers == ("self_attn.q_proj", "self_attn.v_proj")
    assert group.absorber is None
    assert group.reason == "shares its input with self_attn.k_proj, kept in full precision"


def test_shared_inputs_are_the_same_sets(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama")
    _, blocks = find_blocks(model)
    (hidden,), calls = capture_blocks(model, blocks, cut_windows(ids, 1, 16))
    groups = shared_inputs(blocks[0], calls[0], hidden, list(linears_of(blocks[0], "")))
    assert [group.readers for group in groups] == [readers for readers, *_ in EXPECTED["llama"]]


def test_a_wrong_absorber_is_not_proved(build: Callable[..., Any], ids: torch.Tensor) -> None:
    model = build("llama-mha")
    _, blocks = find_blocks(model)
    (hidden,), calls = capture_blocks(model, blocks, cut_windows(ids, 1, 16))
    with torch.no_grad():
        prover = Prover(blocks[0], calls[0], hidden)
        assert not prover.preserves(Absorber("self_attn.q_proj", "rows"), ["self_attn.o_proj"])
        assert not prover.preserves(Absorber("mlp.gate_proj", "rows"), ["mlp.down_proj"])
        assert not prover.preserves(Absorber("input_layernorm", "weight"), ["self_attn.q_proj", "self_attn.k_proj"])
        assert prover.preserves(Absorber("mlp.up_proj", "rows"), ["mlp.down_proj"])


def _summary(group: Group) -> tuple[tuple[str, ...], str | None, str, str]:
    absorber = group.absorber
    return group.readers, absorber and absorber.module, absorber.form if absorber else "", group.inspected
