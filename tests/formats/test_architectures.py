"""Models that lie otherwise on disk than in memory: experts apart that transformers joins, names that it changes."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3Config,
    MixtralConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
)

from awqbench.errors import UserError
from awqbench.formats.config import export_config
from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.load import load_quantized, read_quantized
from awqbench.modeling.experts import Experts, disk_names, unfuse_experts
from awqbench.modeling.names import Names
from awqbench.ops import QuantizedLinear
from awqbench.quantization.rounding import quantize

_SIZES = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "num_experts_per_tok": 2, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(**_SIZES, num_local_experts=4),
    "qwen2-moe": Qwen2MoeConfig(
        **_SIZES, num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=64
    ),
    "deepseek-v3": DeepseekV3Config(
        **_SIZES, n_routed_experts=4, moe_intermediate_size=32, n_group=1, topk_group=1, first_k_dense_replace=0,
        q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32,
    ),
}  # fmt: skip
IDS = torch.arange(2, 30)[None]


def write(folder, config, format_name, quantized):
    """A checkpoint with the linears packed that `quantized` picks by their module's name; the dequantized model."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = load_file(folder / "model.safetensors")
    plain = copy.deepcopy(model)
    unfuse_experts(model)
    renamed = Names(plain)
    names = {renamed.in_model(name).removesuffix(".weight"): name.removesuffix(".weight") for name in tensors}
    names, scheme = names | disk_names(model), Scheme(4, 32)
    chosen = layout(format_name)
    packed, kept = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            on_disk = names.get(name, name)
            if not quantized(name) or not chosen.fits(module.out_features, module.in_features, scheme):
                kept.append(on_disk)
                continue
            packed[on_disk] = quantize(module.weight, 4, 32)
            module.weight.data = packed[on_disk].dequantize()
            del tensors[f"{on_disk}.weight"]
            tensors |= {f"{on_disk}.{s}": t for s, t in chosen.pack(packed[on_disk], scheme).items()}
    content = export_config(plain, dtype="float32", quantization=chosen.config(dict.fromkeys(packed, scheme), kept))
    (folder / "config.json").write_text(json.dumps(content))
    save_file(tensors, folder / "model.safetensors")
    return model, packed


def assert_same_logits(folder, model):
    loaded = load_quantized(folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)
    return loaded


@pytest.mark.parametrize("format_name", ["autoawq", "compressed-tensors"])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_quantized_experts_become_linears(kind, format_name, tmp_path):
    model, packed = write(tmp_path, CONFIGS[kind], format_name, lambda name: name != "lm_head")
    loaded = assert_same_logits(tmp_path, model)
    held = [module for module in loaded.modules() if isinstance(module, QuantizedLinear)]
    assert len(held) == len(packed) > 12
    assert read_quantized(tmp_path).keys() == packed.keys()


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_some_experts_in_full_precision(kind, tmp_path):
    model, _ = write(tmp_path, CONFIGS[kind], "compressed-tensors", lambda name: "experts.1.up_proj" in name)
    loaded = assert_same_logits(tmp_path, model)
    assert isinstance(loaded.get_submodule("model.layers.0.mlp.experts.0.up_proj"), nn.Linear)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_experts_that_are_not_quantized_stay_together(kind, tmp_path):
    model, _ = write(tmp_path, CONFIGS[kind], "autoawq", lambda name: "o_proj" in name)
    loaded = assert_same_logits(tmp_path, model)
    assert not any(isinstance(module, Experts) for module in loaded.modules())


@pytest.mark.parametrize("quantized", ["o_proj", "experts.1.up_proj"])
def test_an_expert_that_is_missing(quantized, tmp_path):
    write(tmp_path, CONFIGS["mixtral"], "autoawq", lambda name: quantized in name)
    tensors = load_file(tmp_path / "model.safetensors")
    (missing,) = [name for name in tensors if "experts.3.w2" in name]
    del tensors[missing]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=str(tmp_path)):
        load_quantized(tmp_path)


@pytest.mark.parametrize("format_name", ["autoawq", "compressed-tensors"])
def test_the_text_tower_of_a_vision_language_model(format_name, tmp_path):
    text = {
        **_SIZES, "head_dim": 16, "sliding_window": 16, "layer_types": ["full_attention"], "num_key_value_heads": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=5)
    model, packed = write(tmp_path, config, format_name, lambda name: "language_model.layers" in name)
    assert len(packed) == 7
    assert not any(name.startswith("model.") for name in packed)
    loaded = assert_same_logits(tmp_path, model)
    assert isinstance(loaded.get_submodule("model.language_model.layers.0.mlp.up_proj"), QuantizedLinear)
