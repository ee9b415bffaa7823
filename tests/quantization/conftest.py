"""Tiny random causal LMs of many architectures, with outlier channels for the scale search to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 300
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 1024, "initializer_range": 0.1, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 1024, "init_std": 0.1, "word_embed_proj_dim": 64,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_SIZES, "num_key_value_heads": 2}),
    "llama-mha": ("LlamaConfig", {**_SIZES, "num_key_value_heads": 4}),
    "qwen2": ("Qwen2Config", {**_SIZES, "num_key_value_heads": 2}),
    "gemma2": ("Gemma2Config", {**_SIZES, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16}),
    "neox": ("GPTNeoXConfig", _SIZES),
    "opt": ("OPTConfig", _OPT),
    "phi3": ("Phi3Config", {**_SIZES, "num_key_value_heads": 4}),
    "olmo2": ("Olmo2Config", {**_SIZES, "num_key_value_heads": 4}),
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4}),
    "cohere": ("CohereConfig", {**_SIZES, "num_key_value_heads": 2}),
    "mixtral": ("MixtralConfig", {**_SIZES, "num_key_value_heads": 2, "num_local_experts": 4}),
}

Build = Callable[..., PreTrainedModel]


@pytest.fixture(scope="session")
def build() -> Build:
    """A function from an architecture's name, and config overrides, to a random model with planted outliers."""

    def make(architecture: str, **overrides: Any) -> PreTrainedModel:
        kind, sizes = ARCHITECTURES[architecture]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**{**sizes, **overrides}))
            for module in model.modules():
                weight = getattr(module, "weight", None)
                if "Norm" in type(module).__name__ and isinstance(weight, Tensor):
                    weight[torch.randperm(weight.numel())[: weight.numel() // 16]] += 8.0
                if isinstance(bias := getattr(module, "bias", None), Tensor):
                    bias.normal_(std=0.1)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def ids() -> Tensor:
    """A token stream [2000] without special tokens."""
    return torch.randint(3, VOCABULARY, (2000,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def llama_folder(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved grouped-query Llama, not tied."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    build("llama", tie_word_embeddings=False).save_pretrained(folder)
    return folder
