from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 3}),
    "qwen2-moe": ("Qwen2MoeConfig", SIZES | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gptj": ("GPTJConfig", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
}


@pytest.fixture(params=sorted(KINDS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    """A tiny random model of every kind in turn, and the folder it was saved to in two shards or more."""
    return save(request.param, tmp_path / "model")


def save(kind: str, folder: Path) -> tuple[PreTrainedModel, Path]:
    """A tiny random model, and its folder."""
    name, sizes = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**sizes)).eval().requires_grad_(False)
    model.save_pretrained(folder, max_shard_size="20kB")
    return model, folder


@pytest.fixture
def llama(tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    """A tiny Llama and its folder."""
    return save("llama", tmp_path / "model")


@pytest.fixture
def mixtral(tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    """A tiny mixture of experts and its folder."""
    return save("mixtral", tmp_path / "model")
