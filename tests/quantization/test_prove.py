from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awqbench.modeling.experts import unfuse_experts
from awqbench.quantization.absorb import Absorber
from awqbench.quantization.blocks import find_blocks
from awqbench.quantization.calibrate import BlockCall
from awqbench.quantization.prove import Prover

QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


@pytest.fixture(scope="module")
def llama(build: Callable[..., Any], capture: Callable[..., Any], ids: Tensor) -> Prover:
    model = build("llama")
    _, blocks = find_blocks(model)
    hidden, calls = capture(model, blocks, ids[:16].view(1, 16))
    with torch.no_grad():
        return Prover(blocks[0], calls[0].stretch, hidden[0])


@pytest.mark.parametrize(
    ("absorber", "readers", "proved"),
    [
        (Absorber("mlp.up_proj", "rows"), ["mlp.down_proj"], True),
        (Absorber("mlp.gate_proj", "rows"), ["mlp.down_proj"], False),
        (Absorber("self_attn.q_proj", "rows"), ["self_attn.o_proj"], False),
        (Absorber("input_layernorm", "weight"), QKV, True),
        (Absorber("input_layernorm", "1 + weight"), QKV, False),
        (Absorber("input_layernorm", "weight"), QKV[:2], False),
        (Absorber("input_layernorm", "weight"), [*QKV, "mlp.up_proj"], False),
        (Absorber("self_attn.v_proj", "rows", torch.arange(32).view(2, 1, 16).repeat(1, 2, 1).flatten()),
         ["self_attn.o_proj"], True),
        (Absorber("self_attn.v_proj", "rows", torch.arange(32).view(1, 2, 16).repeat(2, 1, 1).flatten()),
         ["self_attn.o_proj"], False),
    ],
)  # fmt: skip
def test_only_right_folds_are_proved(llama: Prover, absorber: Absorber, readers: list[str], proved: bool) -> None:
    assert llama.finite
    assert llama.preserves(absorber, readers) is proved


def test_a_scale_without_any_effect_proves_nothing() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    block[1].weight.data.zero_()
    assert not Prover(block, BlockCall((), {}), torch.randn(1, 8, 4)).preserves(Absorber("0", "rows"), ["1"])


def test_the_block_itself_is_left_as_it_is(build: Callable[..., Any], capture: Callable[..., Any], ids: Tensor) -> None:
    model = build("mixtral", num_local_experts=8)
    unfuse_experts(model)
    _, blocks = find_blocks(model)
    hidden, calls = capture(model, blocks, ids[:16].view(1, 16))
    before = {name: value.clone() for name, value in blocks[0].state_dict().items()}
    prover = Prover(blocks[0], calls[0].stretch, hidden[0])
    assert (
        prover.preserves(Absorber("self_attn.v_proj", "rows", torch.arange(32).repeat(2)), ["self_attn.o_proj"])
        is False
    )
    assert all(torch.equal(value, before[name]) for name, value in blocks[0].state_dict().items())
    experts = prover.block.get_submodule("mlp.experts")
    assert len(set(map(id, experts.children()))) < 8  # a few stand for all
