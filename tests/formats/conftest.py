from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from awqbench.formats.checkpoint import write_checkpoint
from awqbench.quantization.tensor import QuantizedTensor

_SMALL = {"vocab_size": 96, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_LLAMA = {
    **_SMALL, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama-tied": lambda: LlamaConfig(
        **_LLAMA, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 77777.0}
    ),
    "llama-untied": lambda: LlamaConfig(
        **_LLAMA, tie_word_embeddings=False, attention_bias=True, rope_parameters=_LLAMA3_ROPE
    ),
    "gpt-neox": lambda: GPTNeoXConfig(
        **_SMALL, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    ),
    "opt": lambda: OPTConfig(
        **_SMALL, hidden_size=64, word_embed_proj_dim=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4
    ),
    "gpt2": lambda: GPT2Config(**_SMALL, n_embd=64, n_inner=96, n_layer=2, n_head=4),
}


def quantize(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    """Any integers near the weight do for a test of the format."""
    out, inputs = weight.shape
    groups = weight.float().view(out, -1, group_size)
    scales = ((groups.amax(-1) - groups.amin(-1)) / (2**bits - 1)).clamp(min=1e-5).half()
    zeros = (-groups.amin(-1) / scales.float()).round().clamp(0, 2**bits - 1)
    codes = (groups / scales.float().unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(0, 2**bits - 1)
    return QuantizedTensor(codes.view(out, inputs).to(torch.uint8), scales, zeros.to(torch.uint8), bits, group_size)


class Written:
    """A model, what was quantized of it, and the checkpoint; `model` holds the dequantized weights."""

    def __init__(self, folder: Path, kind: str, bits: int = 4, **options: object) -> None:
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
        self.source, self.out = folder / "source", folder / "out"
        self.source.mkdir()
        for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
            (self.source / name).write_text("{}")
        self.quantized: dict[str, QuantizedTensor] = {}
        originals = {}
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear | Conv1D) and name not in ("lm_head", "embed_out"):
                transposed = isinstance(module, Conv1D)
                weight = module.weight.data.T if transposed else module.weight.data
                self.quantized[name] = quantize(weight.contiguous(), bits, 32)
                originals[module] = self.quantized[name].dequantize().T if transposed else None
        write_checkpoint(
            self.out, self.source, self.model, self.quantized, bits=bits, group_size=32,
            not_converted=["lm_head"], metadata={"recipe": {"method": "rtn"}}, **options,
        )  # fmt: skip
        for name, tensor in self.quantized.items():
            module = self.model.get_submodule(name)
            dense = originals[module]
            module.weight.data.copy_(tensor.dequantize() if dense is None else dense)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Written]:
    """Write a checkpoint of a tiny random model of some kind."""
    return lambda kind="llama-tied", **options: Written(tmp_path, kind, **options)


@pytest.fixture(params=sorted(CONFIGS))
def any_kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model in turn."""
    return str(request.param)
