"""Small random causal LMs with planted outliers, and an AWQ checkpoint of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.mixed import Mixing
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe

VOCABULARY = 300
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.1, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_SIZES, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {**_SIZES, "num_key_value_heads": 4}),  # biases, and values of one query head each
    "gemma2": ("Gemma2Config", {**_SIZES, "num_key_value_heads": 2, "head_dim": 16}),  # norms store gain - 1
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "mixtral": ("MixtralConfig", {**_SIZES, "num_key_value_heads": 2, "num_local_experts": 4}),
}
SaveModel = Callable[[str, Path], Path]
SaveQuantized = Callable[..., Path]


@pytest.fixture(scope="session")
def save_model() -> SaveModel:
    """A function that writes a random model of an architecture to a folder, which it returns."""

    def save(architecture: str, folder: Path) -> Path:
        kind, sizes = ARCHITECTURES[architecture]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes))
            for module in model.modules():
                weight = getattr(module, "weight", None)
                if "Norm" in type(module).__name__ and isinstance(weight, Tensor):
                    weight[torch.randperm(weight.numel())[: weight.numel() // 16]] += 8.0
                if isinstance(bias := getattr(module, "bias", None), Tensor) and bias.is_floating_point():
                    bias.normal_(std=0.1)
        model.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def ids() -> Tensor:
    """A token stream [2000] without special tokens, of ids that every model here has."""
    return torch.randint(3, 256, (2000,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def save_quantized(ids: Tensor) -> SaveQuantized:
    """A function that quantizes a model's folder, calibrated on four windows of 32 tokens, and returns the new one."""

    def save(source: Path, out: Path, keep: tuple[str, ...] = (), **recipe: Any) -> Path:
        settings = {"method": "awq", "group_size": 16, "grouped_queries": True, **recipe}
        quantize_model(
            source, out, Recipe(**settings), windows=cut_windows(ids, 4, 32), indivisible="keep",
            mixing=Mixing(keep=keep),
        )  # fmt: skip
        return out

    return save


@pytest.fixture(scope="session")
def llama(save_model: SaveModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random grouped-query Llama."""
    return save_model("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def llama_awq(llama: Path, save_quantized: SaveQuantized, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It in 3 bits, scaled."""
    return save_quantized(llama, tmp_path_factory.mktemp("made") / "awq", bits=3)
