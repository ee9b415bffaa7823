"""Tiny checkpoints, of random weights, of every family that llama.cpp gets files of."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from awqbench.formats.config import export_config
from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.writer import Stored, write_folder
from awqbench.quantization.rounding import quantize
from awqbench.quantization.tensor import QuantizedTensor

_MERGES = [("h", "e"), ("he", "r"), ("Ġ", "t"), ("Ġt", "he"), ("1", "9")]
_SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "bos_token_id": 0,
    "eos_token_id": 1, "vocab_size": 264,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SMALL, tie_word_embeddings=True),
    "llama3": lambda: LlamaConfig(**_SMALL, attention_bias=True, tie_word_embeddings=False, rope_parameters=_LLAMA3),
    "mistral": lambda: MistralConfig(**_SMALL, head_dim=32, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**_SMALL, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**_SMALL, head_dim=32),
}


def byte_pair_tokenizer(kind: str = "gpt-2") -> Tokenizer:
    """A byte-level tokenizer with a few merges that splits text as one of llama.cpp's pre-tokenizers does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "</s>", "<tool>", *alphabet, *("".join(pair) for pair in _MERGES)]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, _MERGES))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "gpt-2":
        tokenizer.pre_tokenizer = whole
    elif kind == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    else:
        split = pre_tokenizers.Split(Regex(kind), behavior="isolated")
        parts = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


class Made:
    """A checkpoint; `model` holds the weights that its codes stand for."""

    def __init__(self, folder: Path, family: str, format_name: str | None, scheme: Scheme) -> None:
        torch.manual_seed(0)
        self.folder, self.scheme = folder, scheme
        self.model: PreTrainedModel = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
        for name, parameter in self.model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                nn.init.normal_(parameter.data, 1.0 if name.endswith("weight") else 0.0, 0.3)
        self.quantized: dict[str, QuantizedTensor] = {}
        linears = {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        for name in linears if format_name else ():
            if name != "lm_head":
                weight = linears[name].weight
                group = weight.shape[1] // scheme.groups(weight.shape[1])
                self.quantized[name] = quantize(weight, scheme.bits, group, symmetric=scheme.symmetric)
                weight.data = self.quantized[name].dequantize()
        skipped = {f"{name}.weight" for name in self.quantized} | set(self.model.all_tied_weights_keys)
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if name not in skipped}
        quantization: dict[str, object] = {}
        if format_name:
            chosen = layout(format_name)
            quantization = chosen.config(dict.fromkeys(self.quantized, scheme), ["lm_head"])
            for name, quantized in self.quantized.items():
                packed = chosen.pack(quantized, scheme)
                tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in packed.items()}
        config = export_config(self.model, dtype="float32", quantization=quantization)
        files = {
            "config.json": json.dumps(config),
            "tokenizer.json": byte_pair_tokenizer().to_str(),
            "tokenizer_config.json": json.dumps({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ x }}"}),
        }
        write_folder(folder, {name: Stored.of(each) for name, each in tensors.items()}, files, folder.parent / "none")


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    """Write a checkpoint of a tiny random model of some family."""

    def make(family: str = "llama", format_name: str | None = "autoawq", **scheme: object) -> Made:
        return Made(tmp_path / "model", family, format_name, Scheme(**{"bits": 4, "group_size": 32, **scheme}))

    return make


@pytest.fixture
def byte_pair() -> Callable[..., Tokenizer]:
    """See `byte_pair_tokenizer`."""
    return byte_pair_tokenizer
