from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from awqbench.modeling.experts import Experts, disk_names, unfuse_experts

EXPERTS = 6
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
LATENT = {
    **SIZES, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": EXPERTS, "first_k_dense_replace": 1,
}  # fmt: skip
# By configuration: its sizes, and what an expert's gate, up and down are called on disk (None: they are fused there).
MODELS: dict[str, tuple[dict[str, Any], str | None, tuple[str, str, str]]] = {
    "MixtralConfig": ({**SIZES, "num_local_experts": EXPERTS}, "block_sparse_moe.experts", ("w1", "w3", "w2")),
    "Qwen2MoeConfig": ({**SIZES, "num_experts": EXPERTS}, "mlp.experts", ("gate_proj", "up_proj", "down_proj")),
    "Qwen3MoeConfig": ({**SIZES, "num_experts": EXPERTS}, "mlp.experts", ("gate_proj", "up_proj", "down_proj")),
    "OlmoeConfig": ({**SIZES, "num_experts": EXPERTS}, "mlp.experts", ("gate_proj", "up_proj", "down_proj")),
    "DeepseekV2Config": (LATENT, "mlp.experts", ("gate_proj", "up_proj", "down_proj")),
    "DeepseekV3Config": (
        {**LATENT, "n_group": 2, "topk_group": 1}, "mlp.experts", ("gate_proj", "up_proj", "down_proj")
    ),
    "PhimoeConfig": ({**SIZES, "num_local_experts": EXPERTS}, "block_sparse_moe.experts", ("w1", "w3", "w2")),
    "GraniteMoeConfig": ({**SIZES, "num_local_experts": EXPERTS}, None, ("", "", "")),
    "GptOssConfig": ({**SIZES, "num_local_experts": EXPERTS, "head_dim": 8}, None, ("", "", "")),
}  # fmt: skip


def build(name: str, **overrides: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**MODELS[name][0], **overrides})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(1.0, 0.2)
    return model.eval().requires_grad_(False)


@pytest.fixture
def ids() -> Tensor:
    """Token ids [2, 9]."""
    return torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_stays_the_same(name: str, ids: Tensor) -> None:
    model = build(name)
    expected, one = model(ids).logits, model(ids[:1, :1]).logits
    replaced = unfuse_experts(model)
    assert replaced
    assert all(isinstance(model.get_submodule(each), Experts) for each in replaced)
    assert torch.allclose(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.allclose(model(ids[:1, :1]).logits, one, atol=1e-4, rtol=1e-4)  # most experts get no token
    assert unfuse_experts(model) == []


@pytest.mark.parametrize("name", MODELS)
def test_names_on_disk_are_those_that_transformers_saves(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    names = disk_names(model)
    unfused = unfuse_experts(model)
    assert disk_names(model) == names
    _, where, linears = MODELS[name]
    if where is None:
        assert names == {}
        return
    layer = unfused[-1].removesuffix("mlp.experts")
    assert len(names) == len(unfused) * EXPERTS * 3
    for linear, disk in zip(("gate_proj", "up_proj", "down_proj"), linears, strict=True):
        assert names[f"{unfused[-1]}.4.{linear}"] == f"{layer}{where}.4.{disk}"
    for module, disk in names.items():
        assert torch.equal(model.get_parameter(f"{module}.weight"), saved[f"{disk}.weight"])


def test_the_linears_are_views_of_the_fused_weights() -> None:
    model = build("MixtralConfig")
    fused = model.get_parameter("model.layers.0.mlp.experts.gate_up_proj")
    unfuse_experts(model)
    gate = model.get_parameter("model.layers.0.mlp.experts.2.gate_proj.weight")
    up = model.get_parameter("model.layers.0.mlp.experts.2.up_proj.weight")
    assert gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(torch.cat([gate, up]), fused[2])


@pytest.mark.parametrize("name", ["MixtralConfig", "GptOssConfig"])
def test_the_meta_device_will_do(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    real = build(name)
    assert unfuse_experts(model) == unfuse_experts(real)
    shapes = {key: value.shape for key, value in real.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    assert disk_names(model) == disk_names(real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slots_of_no_expert_add_nothing(dtype: torch.dtype) -> None:
    model = build("MixtralConfig").to(dtype)
    fused = model.get_submodule("model.layers.0.mlp.experts")
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    index = torch.tensor([[0, 1], [1, 5], [5, 6], [6, 6], [3, 3]])
    weights = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    valid = index.clamp(max=EXPERTS - 1), weights.masked_fill(index >= EXPERTS, 0)
    expected = fused(hidden, *valid)
    unfuse_experts(model)
    result = model.get_submodule("model.layers.0.mlp.experts")(hidden, index, weights)
    assert torch.allclose(result, expected, atol=1e-5 if dtype == torch.float32 else 0.1)
    assert torch.equal(result[3], torch.zeros_like(result[3]))


def test_linears_may_be_replaced_by_modules_without_a_weight(ids: Tensor) -> None:
    class Wrapped(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.packed = linear

        def forward(self, hidden: Tensor) -> Tensor:
            """hidden [tokens, in]"""
            return self.packed(hidden)  # type: ignore[no-any-return]

    model = build("Qwen2MoeConfig")
    expected = model(ids).logits
    unfuse_experts(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ".experts." in name:
            model.set_submodule(name, Wrapped(module))
    assert torch.allclose(model(ids).logits, expected, atol=1e-4)


def test_what_is_not_understood_stays_fused() -> None:
    model = build("MixtralConfig")
    model.get_submodule("model.layers.0.mlp.experts").register_parameter("extra", nn.Parameter(torch.ones(1)))
    model.get_submodule("model.layers.1.mlp.experts").is_concatenated = False
    assert unfuse_experts(model) == []


def test_another_forward_is_found_out() -> None:
    model = build("MixtralConfig")
    for layer, forward in enumerate((lambda hidden, index, weights: 2 * hidden, lambda hidden: hidden)):
        model.get_submodule(f"model.layers.{layer}.mlp.experts").forward = forward
    assert unfuse_experts(model) == []
