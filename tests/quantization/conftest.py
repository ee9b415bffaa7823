"""Tiny random causal LMs of many architectures, with outlier channels for the scale search to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from awqbench.quantization.calibrate import BlockCall, BlockCalls
from awqbench.quantization.capture import STRETCH_TOKENS

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
_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 24, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, **_MOE,
}  # fmt: skip
_GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_VISION = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_SIZES, "num_key_value_heads": 2}),
    "llama-mha": ("LlamaConfig", {**_SIZES, "num_key_value_heads": 4}),
    "mistral": ("MistralConfig", {**_SIZES, "num_key_value_heads": 2, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", {**_SIZES, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {**_SIZES, "num_key_value_heads": 2, "head_dim": 24}),
    "gemma2": ("Gemma2Config", {**_SIZES, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", {**_SIZES, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 16}),
    "neox": ("GPTNeoXConfig", _SIZES),
    "opt": ("OPTConfig", _OPT),
    "phi3": ("Phi3Config", {**_SIZES, "num_key_value_heads": 4}),
    "phi3-gqa": ("Phi3Config", {**_SIZES, "num_key_value_heads": 2}),
    "phi": ("PhiConfig", _SIZES),
    "olmo2": ("Olmo2Config", {**_SIZES, "num_key_value_heads": 4}),
    "gpt2": ("GPT2Config", _GPT2),
    "gptj": ("GPTJConfig", {**_GPT2, "rotary_dim": 16}),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "falcon-new": ("FalconConfig", {**_SIZES, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-multi-query": ("FalconConfig", {**_SIZES, "multi_query": True}),
    "starcoder2": ("Starcoder2Config", {**_SIZES, "num_key_value_heads": 2}),
    "stablelm": ("StableLmConfig", {**_SIZES, "num_key_value_heads": 4}),
    "mpt": ("MptConfig", {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 1024}),
    "cohere": ("CohereConfig", {**_SIZES, "num_key_value_heads": 2}),
    "cohere2": ("Cohere2Config", {**_SIZES, "num_key_value_heads": 2, "sliding_window": 16}),
    "granite": ("GraniteConfig", {**_SIZES, "num_key_value_heads": 2, "residual_multiplier": 0.2}),
    "mamba": ("MambaConfig", {**_SIZES, "state_size": 8, "time_step_rank": 8}),
    "mixtral": ("MixtralConfig", {**_SIZES, "num_key_value_heads": 2, "num_local_experts": 4}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {**_SIZES, **_MOE, "num_key_value_heads": 4, "num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "qwen3-moe": ("Qwen3MoeConfig", {**_SIZES, **_MOE, "num_key_value_heads": 4, "num_experts": 4}),
    "olmoe": ("OlmoeConfig", {**_SIZES, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek-v2": ("DeepseekV2Config", {**_SIZES, **_LATENT}),
    "deepseek-v3": ("DeepseekV3Config", {**_SIZES, **_LATENT, "n_group": 2, "topk_group": 1}),
    "gpt-oss": (
        "GptOssConfig",
        {**_SIZES, "num_key_value_heads": 4, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "gemma3-vision": (
        "Gemma3Config",
        {
            "text_config": {**_SIZES, "num_key_value_heads": 4, "head_dim": 16, "sliding_window": 16},
            "vision_config": _VISION, "mm_tokens_per_image": 4,
        },
    ),
}  # fmt: skip

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
                if isinstance(bias := getattr(module, "bias", None), Tensor) and bias.is_floating_point():
                    bias.normal_(std=0.1)
        return model.eval().requires_grad_(False)

    return make


Capture = Callable[[PreTrainedModel, nn.ModuleList, Tensor], tuple[list[Tensor], list[BlockCalls]]]


@pytest.fixture(scope="session")
def capture() -> Capture:
    """A function from a loaded model, its blocks and windows of ids [windows, seq_len] to every block's input
    [windows, seq_len, width] and how each block is called.
    """

    def run(model: PreTrainedModel, blocks: nn.ModuleList, ids: Tensor) -> list[tuple[Tensor, BlockCall]]:
        seen: list[tuple[Tensor, BlockCall]] = []

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kwargs = dict(kwargs)
            hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
            seen.append((hidden, BlockCall(args, kwargs)))

        handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        return seen

    def capture_all(
        model: PreTrainedModel, blocks: nn.ModuleList, ids: Tensor
    ) -> tuple[list[Tensor], list[BlockCalls]]:
        full, stretch, single = (run(model, blocks, part) for part in (ids, ids[:1, :STRETCH_TOKENS], ids[:1, :1]))
        calls = [BlockCalls(*(call for _, call in each)) for each in zip(full, stretch, single, strict=True)]
        return [hidden for hidden, _ in full], calls

    return capture_all


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
