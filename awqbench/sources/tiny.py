"""A tiny Llama with random weights, made on the spot: for smoke runs and tests where nothing can be downloaded.

Some input channels are far larger than the rest, as in trained models, so that activation-aware scaling has something
to find. The embedding is spread so that its logits differ. It knows nothing: a verdict on it means nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from awqbench.cache import cache_dir
from awqbench.sources.made import made_folder

_VERSION = 1


def tiny_folder() -> Path:
    """The model's folder in the cache; made in about a second the first time, the same bytes every time."""
    return made_folder(cache_dir("models") / f"tiny-random-{_VERSION}", make_tiny)


def make_tiny(out: Path, seed: int = 0, **overrides: Any) -> None:
    """Write a byte-level Llama of about a million parameters to `out`; overrides are LlamaConfig fields."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "tie_word_embeddings": True, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.08, **overrides,
        }
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "layernorm" in name:
                    outliers = torch.randperm(parameter.numel())[: max(1, parameter.numel() // 32)]
                    parameter[outliers] *= 12.0
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def byte_tokenizer() -> Any:
    """One token per byte, after <pad>, <s> and </s>; no BOS is added by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>"]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *letters])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )
