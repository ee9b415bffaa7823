from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awqbench.errors import UserError
from awqbench.modeling.experts import unfuse_experts
from awqbench.quantization.absorb import Form, scale_inputs
from awqbench.quantization.blocks import find_blocks, linears_of, routers, unreachable, untranspose
from awqbench.quantization.calibrate import BlockCall, BlockCalls
from awqbench.quantization.groups import NOT_FINITE, REPEATED, UNPROVED, Group, find_groups, shared_inputs
from awqbench.quantization.overrides import GroupOverride, Overrides

Build = Callable[..., Any]
Capture = Callable[..., tuple[list[Tensor], list[BlockCalls]]]


def norm(absorber: str, readers: str, inspected: str, form: str = "weight") -> tuple[str, ...]:
    return readers, absorber, form, inspected


def rows(absorber: str, reader: str) -> tuple[str, ...]:
    """The last rows of a linear, in order."""
    return reader, absorber, "rows", reader


def mapped(absorber: str, reader: str) -> tuple[str, ...]:
    """Rows in another order, or not the last."""
    return reader, absorber, "rows mapped", reader


def repeated(absorber: str, reader: str) -> tuple[str, ...]:
    """Rows that feed several channels each."""
    return reader, absorber, "rows repeated", reader


def alone(readers: str) -> tuple[str, ...]:
    return readers, UNPROVED


QKV = "self_attn.q_proj self_attn.k_proj self_attn.v_proj"
GATE_UP = "mlp.gate_proj mlp.up_proj"
V_O = rows("self_attn.v_proj", "self_attn.o_proj")
V_O_GROUPED = repeated("self_attn.v_proj", "self_attn.o_proj")
UP_DOWN = rows("mlp.up_proj", "mlp.down_proj")
LLAMA_ATTENTION = norm("input_layernorm", QKV, "self_attn")
LLAMA_MLP = [norm("post_attention_layernorm", GATE_UP, "mlp"), UP_DOWN]
LLAMA = [LLAMA_ATTENTION, V_O_GROUPED, *LLAMA_MLP]
GEMMA = [
    norm("input_layernorm", QKV, "self_attn", "1 + weight"),
    V_O_GROUPED,
    norm("pre_feedforward_layernorm", GATE_UP, "mlp", "1 + weight"),
    UP_DOWN,
]
PHI3_MLP = [
    norm("post_attention_layernorm", "mlp.gate_up_proj", "mlp"),
    rows("mlp.gate_up_proj", "mlp.down_proj"),
]
COHERE = [norm("input_layernorm", f"{QKV} {GATE_UP}", ""), V_O_GROUPED, UP_DOWN]  # one norm: judged by the whole block
FUSED_ATTENTION = [  # queries, keys and values interleaved by head
    norm("input_layernorm", "self_attention.query_key_value", "self_attention"),
    mapped("self_attention.query_key_value", "self_attention.dense"),
]
EXPERTS = "mlp.experts.*.gate_proj mlp.experts.*.up_proj"
EXPERT_DOWN = rows("mlp.experts.*.up_proj", "mlp.experts.*.down_proj")
MOE = [norm("post_attention_layernorm", f"{EXPERTS} + mlp.gate", "mlp.experts"), EXPERT_DOWN]
LATENT_ATTENTION = [
    norm("input_layernorm", "self_attn.q_a_proj self_attn.kv_a_proj_with_mqa", "self_attn"),
    norm("self_attn.q_a_layernorm", "self_attn.q_b_proj", "self_attn"),
    norm("self_attn.kv_a_layernorm", "self_attn.kv_b_proj", "self_attn"),
    mapped("self_attn.kv_b_proj", "self_attn.o_proj"),
]
SHARED = "mlp.shared_experts.gate_proj mlp.shared_experts.up_proj"
DEEPSEEK_MOE = [
    norm("post_attention_layernorm", f"{EXPERTS} {SHARED} + mlp.gate", "mlp"),
    rows("mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"),
    EXPERT_DOWN,
]
DEEPSEEK = {0: [*LATENT_ATTENTION, *LLAMA_MLP], 1: [*LATENT_ATTENTION, *DEEPSEEK_MOE]}

# By architecture: each group's readers (after a plus sign those that stay in full precision), its absorber, the form,
# and the module inspected. GELU and gpt-oss's clamped gate do not scale; OLMo 2's norms stand behind attention and MLP.
EXPECTED: dict[str, Any] = {
    "llama": LLAMA,
    "llama-mha": [LLAMA_ATTENTION, V_O, *LLAMA_MLP],
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "granite": LLAMA,
    "stablelm": [LLAMA_ATTENTION, V_O, *LLAMA_MLP],
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "gemma3-vision": [GEMMA[0], V_O, *GEMMA[2:]],
    "phi3": [
        norm("input_layernorm", "self_attn.qkv_proj", "self_attn"),
        rows("self_attn.qkv_proj", "self_attn.o_proj"),
        *PHI3_MLP,
    ],
    "phi3-gqa": [
        norm("input_layernorm", "self_attn.qkv_proj", "self_attn"),
        repeated("self_attn.qkv_proj", "self_attn.o_proj"),
        *PHI3_MLP,
    ],
    "phi": [
        norm("input_layernorm", f"{QKV} mlp.fc1", ""),
        rows("self_attn.v_proj", "self_attn.dense"),
        alone("mlp.fc2"),
    ],
    "gptj": [
        norm("ln_1", "attn.q_proj attn.k_proj attn.v_proj mlp.fc_in", ""),
        rows("attn.v_proj", "attn.out_proj"),
        alone("mlp.fc_out"),
    ],
    "gpt2": [
        norm("ln_1", "attn.c_attn", "attn"),
        rows("attn.c_attn", "attn.c_proj"),
        norm("ln_2", "mlp.c_fc", "mlp"),
        alone("mlp.c_proj"),
    ],
    "neox": [
        norm("input_layernorm", "attention.query_key_value", "attention"),
        mapped("attention.query_key_value", "attention.dense"),
        norm("post_attention_layernorm", "mlp.dense_h_to_4h", "mlp"),
        alone("mlp.dense_4h_to_h"),
    ],
    "opt": [
        norm("self_attn_layer_norm", QKV, "self_attn"),
        rows("self_attn.v_proj", "self_attn.out_proj"),
        norm("final_layer_norm", "fc1", "fc1"),
        rows("fc1", "fc2"),  # ReLU scales
    ],
    "bloom": [
        *FUSED_ATTENTION,
        norm("post_attention_layernorm", "mlp.dense_h_to_4h", "mlp"),
        alone("mlp.dense_4h_to_h"),
    ],
    "falcon-new": [
        norm("ln_attn", "self_attention.query_key_value", "self_attention"),
        repeated("self_attention.query_key_value", "self_attention.dense"),
        norm("ln_mlp", "mlp.dense_h_to_4h", "mlp"),
        alone("mlp.dense_4h_to_h"),
    ],
    "falcon-multi-query": [
        norm("input_layernorm", "self_attention.query_key_value mlp.dense_h_to_4h", ""),
        repeated("self_attention.query_key_value", "self_attention.dense"),
        alone("mlp.dense_4h_to_h"),
    ],
    "mpt": [
        norm("norm_1", "attn.Wqkv", "attn"),
        rows("attn.Wqkv", "attn.out_proj"),
        norm("norm_2", "ffn.up_proj", "ffn"),
        alone("ffn.down_proj"),
    ],
    "starcoder2": [
        LLAMA_ATTENTION,
        V_O_GROUPED,
        norm("post_attention_layernorm", "mlp.c_fc", "mlp"),
        alone("mlp.c_proj"),
    ],
    "olmo2": [alone(QKV), V_O, alone(GATE_UP), UP_DOWN],
    "cohere": COHERE,
    "cohere2": COHERE,
    "mamba": [norm("norm", "mixer.in_proj", "mixer"), alone("mixer.x_proj"), alone("mixer.out_proj")],
    "mixtral": [LLAMA_ATTENTION, V_O_GROUPED, *MOE],
    "qwen3-moe": [LLAMA_ATTENTION, V_O, *MOE],
    "olmoe": [LLAMA_ATTENTION, V_O, *MOE],
    "qwen2-moe": [
        LLAMA_ATTENTION,
        V_O,
        norm(
            "post_attention_layernorm",
            f"{EXPERTS} mlp.shared_expert.gate_proj mlp.shared_expert.up_proj + mlp.gate mlp.shared_expert_gate",
            "mlp",
        ),
        rows("mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"),
        EXPERT_DOWN,
    ],
    "deepseek-v2": DEEPSEEK,
    "deepseek-v3": DEEPSEEK,
    "gpt-oss": [
        LLAMA_ATTENTION,
        V_O,
        norm("post_attention_layernorm", f"{EXPERTS} + mlp.router", "mlp.experts"),
        alone("mlp.experts.*.down_proj"),
    ],
}

# What is left of the blocks' weight matrices: nothing may be neither quantized nor named.
KEPT: dict[str, set[str]] = {
    "mamba": {"mixer.A_log", "mixer.conv1d.weight"},
    "mixtral": {"mlp.gate.weight"},
    "qwen3-moe": {"mlp.gate.weight"},
    "olmoe": {"mlp.gate.weight"},
    "qwen2-moe": {"mlp.gate.weight", "mlp.shared_expert_gate"},
    "deepseek-v2": {"mlp.gate.weight"},
    "deepseek-v3": {"mlp.gate.weight"},
    "gpt-oss": {"mlp.router.weight"},
}
NEVER_CALLED = {"mamba": {"mixer.dt_proj"}}  # its weight is used without it


@pytest.mark.parametrize("architecture", EXPECTED)
def test_groups_are_found_and_folding_them_preserves_the_function(
    build: Build, capture: Capture, ids: Tensor, architecture: str
) -> None:
    model, blocks, prefix = opened(build, architecture)
    batch = ids[:40].unsqueeze(0)
    expected = model(batch).logits
    hidden, calls = capture(model, blocks, ids[:96].view(2, 48))
    generator = torch.Generator().manual_seed(5)
    kept = [*unreachable(blocks, prefix), *routers(blocks, prefix)]
    assert {re.sub(rf"^{prefix}\.\d+\.", "", name) for name in kept} == KEPT.get(architecture, set())
    for index, block in enumerate(blocks):
        linears = [name for name in linears_of(block, "") if f"{prefix}.{index}.{name}" not in kept]
        groups = find_groups(block, calls[index], hidden[index], linears, seed=3, grouped_queries=True)
        wanted = EXPECTED[architecture]
        assert summary(groups) == (wanted[index] if isinstance(wanted, dict) else wanted)
        grouped = [name for group in groups for name in group.readers]
        assert len(set(grouped)) == len(grouped)
        assert set(linears) - set(grouped) == NEVER_CALLED.get(architecture, set())
        for group in groups:
            assert sorted(name for share in group.shares for name in share) == sorted(group.readers)
            fold(block, group, generator)
    error = (model(batch).logits - expected).norm() / expected.norm()
    assert error < 1e-5


def test_grouped_queries_are_left_alone_unless_asked_for(build: Build, capture: Capture, ids: Tensor) -> None:
    block, calls, hidden = first_block(build, capture, ids, "llama")
    group = find_groups(block, calls, hidden, list(linears_of(block, "")))[1]
    assert (group.readers, group.absorber, group.reason) == (("self_attn.o_proj",), None, REPEATED)


def test_a_reader_in_full_precision_is_scaled_along(build: Build, capture: Capture, ids: Tensor) -> None:
    block, calls, hidden = first_block(build, capture, ids, "llama")
    names = [name for name in linears_of(block, "") if name != "self_attn.k_proj"]
    group = find_groups(block, calls, hidden, names)[0]
    assert group.readers == ("self_attn.q_proj", "self_attn.v_proj")
    assert group.also == ("self_attn.k_proj",)
    assert group.absorber is not None
    expected = calls.full(block, hidden)
    fold(block, group, torch.Generator().manual_seed(0))
    assert torch.allclose(calls.full(block, hidden), expected, atol=1e-4)


def test_experts_share_what_the_router_sends_them(build: Build, capture: Capture, ids: Tensor) -> None:
    block, calls, hidden = first_block(build, capture, ids, "qwen2-moe")
    for groups in (
        find_groups(block, calls, hidden, list(linears_of(block, ""))),
        shared_inputs(block, calls, hidden, list(linears_of(block, ""))),
    ):
        (group,) = (group for group in groups if "mlp.experts.0.up_proj" in group.readers)
        experts = [(f"mlp.experts.{i}.gate_proj", f"mlp.experts.{i}.up_proj") for i in range(4)]
        assert list(group.shares[:4]) == experts
        assert set(group.shares[4]) == {
            "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert_gate"
        }  # fmt: skip


def test_an_expert_without_tokens_has_its_groups(build: Build, capture: Capture, ids: Tensor) -> None:
    model, blocks, _ = opened(build, "mixtral", num_local_experts=48, num_experts_per_tok=1)
    hidden, calls = capture(model, blocks, ids[:32].view(1, 32))
    reached = set()
    for index, expert in enumerate(blocks[0].get_submodule("mlp.experts").children()):
        expert.register_forward_hook(lambda *_, index=index: reached.add(index))
    calls[0].full(blocks[0], hidden[0])
    idle = min(set(range(48)) - reached)
    groups = {group.readers: group for group in find_groups(blocks[0], calls[0], hidden[0], linears_of(blocks[0], ""))}
    absorber = groups[(f"mlp.experts.{idle}.down_proj",)].absorber
    assert absorber
    assert absorber.module == f"mlp.experts.{idle}.up_proj"


def test_half_precision_changes_nothing(build: Build, capture: Capture, ids: Tensor) -> None:
    for architecture in ("gemma2", "neox", "deepseek-v3"):
        model, blocks, _ = opened(build, architecture)
        model.to(torch.bfloat16)
        hidden, calls = capture(model, blocks, ids[:48].view(1, 48))
        wanted = EXPECTED[architecture]
        groups = find_groups(blocks[1], calls[1], hidden[1], list(linears_of(blocks[1], "")), grouped_queries=True)
        assert summary(groups) == (wanted[1] if isinstance(wanted, dict) else wanted)


def test_shared_inputs_are_the_same_sets(build: Build, capture: Capture, ids: Tensor) -> None:
    for architecture in ("llama", "cohere", "qwen3-moe"):
        block, calls, hidden = first_block(build, capture, ids, architecture)
        linears = list(linears_of(block, ""))
        plain = shared_inputs(block, calls, hidden, linears)
        assert [group.readers for group in plain] == [
            group.readers for group in find_groups(block, calls, hidden, linears)
        ]
        assert not any(group.absorber for group in plain)


def test_a_block_that_overflows_is_named_and_left_alone(build: Build, capture: Capture, ids: Tensor) -> None:
    block, calls, hidden = first_block(build, capture, ids, "llama")
    groups = find_groups(block, calls, hidden * float("nan"), list(linears_of(block, "")))
    assert {group.reason for group in groups} == {NOT_FINITE}
    assert not any(group.absorber for group in groups)


@pytest.mark.parametrize(
    ("readers", "absorber", "form", "message"),
    [
        (
            "o_proj",
            "self_attn.k_proj",
            "weight",
            "'self_attn.k_proj' has 32 channels to divide, self_attn.o_proj reads 64",
        ),
        ("o_proj", "self_attn.k_proj", "rows", "'self_attn.k_proj' has 32 channels to divide"),
        ("o_proj", "self_attn", "rows", "'self_attn' has 0 channels to divide"),
        ("o_proj", "mlp.act_fn", "weight", "'mlp.act_fn' has 0 channels to divide"),
        ("re:.*(o|down)_proj", "input_layernorm", "weight", "'self_attn.o_proj': 64, 'mlp.down_proj': 128"),
    ],
)
def test_an_absorber_that_cannot_be_one_is_named(
    build: Build, capture: Capture, ids: Tensor, readers: str, absorber: str, form: Form, message: str
) -> None:
    block, calls, hidden = first_block(build, capture, ids, "llama")
    asked = Overrides((GroupOverride((readers,), absorber, form, proved=False),))
    with pytest.raises(UserError, match=message):
        find_groups(block, calls, hidden, list(linears_of(block, "")), overrides=asked)


class Copying(nn.Module):
    """A block that no watching understands: each of two linears reads a copy of the norm's output."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [.., 8]"""
        normed = self.norm(hidden)
        return hidden + self.one(normed.clone()).tanh() * self.two(normed.clone())


def test_what_is_not_found_can_be_declared() -> None:
    torch.manual_seed(0)
    block, hidden = Copying().requires_grad_(False), torch.randn(1, 16, 8)
    plain = BlockCalls(*[BlockCall((), {})] * 3)

    def found(*groups: GroupOverride) -> list[tuple[str, ...]]:
        return summary(find_groups(block, plain, hidden, ["one", "two"], overrides=Overrides(groups)))

    assert found() == [alone("one"), alone("two")]
    assert found(GroupOverride(("one", "re:t.o"), "norm", "weight")) == [norm("norm", "one two", "")]
    assert found(GroupOverride(("one",), "norm", "weight")) == [alone("one"), alone("two")]  # two reads it as well
    assert found(GroupOverride(("one",), "norm", "weight", proved=False))[0] == norm("norm", "one", "one")
    assert found(GroupOverride(("one", "two"), "norm", "1 + weight")) == [alone("one two")]
    assert found(GroupOverride(("three",), "norm", "weight")) == found()  # another block may have it


def opened(build: Build, architecture: str, **overrides: Any) -> tuple[Any, nn.ModuleList, str]:
    model = build(architecture, **overrides)
    untranspose(model)
    unfuse_experts(model)
    prefix, blocks = find_blocks(model)
    return model, blocks, prefix


def first_block(build: Build, capture: Capture, ids: Tensor, architecture: str) -> tuple[nn.Module, BlockCalls, Tensor]:
    model, blocks, _ = opened(build, architecture)
    hidden, calls = capture(model, blocks, ids[:48].view(1, 48))
    return blocks[0], calls[0], hidden[0]


def fold(block: nn.Module, group: Group, generator: torch.Generator) -> None:
    if group.absorber:
        width = block.get_submodule(group.readers[0]).in_features
        scale = group.absorber.share(0.25 + 4 * torch.rand(width, generator=generator))  # type: ignore[arg-type]
        group.absorber.divide(block, scale)
        scale_inputs(block, (*group.readers, *group.also), scale)


def summary(groups: list[Group]) -> list[tuple[str, ...]]:
    """As in the table, with the groups of a layer's experts taken for one."""
    found = []
    for group in groups:
        readers = " ".join(sorted_names(group.readers))
        if group.also:
            readers += " + " + " ".join(sorted(group.also))
        row: tuple[str, ...] = readers, group.reason
        if group.absorber:
            form = group.absorber.form
            if group.absorber.channels is not None:
                form += " repeated" if group.absorber.repeats else " mapped"
            row = readers, any_expert(group.absorber.module), form, any_expert(group.inspected)
        if row not in found:
            found.append(row)
    return found


def sorted_names(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(map(any_expert, names)))


def any_expert(name: str) -> str:
    return re.sub(r"experts\.\d+\.", "experts.*.", name)
