import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from awqbench.formats.config import export_config
from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.writer import Stored, write_folder
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


def quantize(weight: Tensor, scheme: Scheme) -> QuantizedTensor:
    """Any integers near the weight do for a test of the format."""
    out, inputs = weight.shape
    top, middle = 2**scheme.bits - 1, 2 ** (scheme.bits - 1)
    groups = weight.float().view(out, scheme.groups(inputs), -1)
    if scheme.symmetric:
        scales = (groups.abs().amax(-1) / (middle - 0.5)).clamp(min=1e-5).half()
        zeros = torch.full_like(scales, middle).float()
    else:
        scales = ((groups.amax(-1) - groups.amin(-1)) / top).clamp(min=1e-5).half()
        zeros = (-groups.amin(-1) / scales.float()).round().clamp(0, top)
    codes = (groups / scales.float().unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(0, top).to(torch.uint8)
    return QuantizedTensor(codes.view(out, inputs), scales, zeros.to(torch.uint8), scheme.bits, groups.shape[-1])


class Written:
    """A model, what was quantized of it, and the checkpoint; `model` holds the dequantized weights."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        format_name: str = "autoawq",
        bits: int = 4,
        group_size: int = 32,
        symmetric: bool = False,
        mixed: dict[str, Scheme] | None = None,
        kept: tuple[str, ...] = ("lm_head", "embed_out"),
        dtype: torch.dtype = torch.float32,
        max_shard_bytes: int = 10**9,
    ) -> None:
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
        self.layout, self.scheme = layout(format_name), Scheme(bits, group_size, symmetric)
        self.source, self.out = folder / "source", folder / "out"
        self.source.mkdir()
        for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
            (self.source / name).write_text("{}")
        linears = {name: m for name, m in self.model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
        self.kept = [name for name in linears if name in kept]
        self.schemes = {name: (mixed or {}).get(name, self.scheme) for name in linears if name not in kept}
        self.quantized: dict[str, QuantizedTensor] = {}
        for name, scheme in self.schemes.items():
            transposed = isinstance(linears[name], Conv1D)
            weight = linears[name].weight.data.T if transposed else linears[name].weight.data
            self.quantized[name] = tensor = quantize(weight.contiguous(), scheme)
            linears[name].weight.data = tensor.dequantize().T.contiguous() if transposed else tensor.dequantize()
        config = export_config(
            self.model,
            dtype=str(dtype).removeprefix("torch."),
            quantization=self.layout.config(self.schemes, self.kept),
        )
        recipe = {"effective_bits": bits, "group_size": group_size, "recipe": {"method": "rtn"}}
        files = {"config.json": json.dumps(config), "quantize.json": json.dumps(recipe)}
        stored = {name: Stored.of(tensor) for name, tensor in self.tensors(dtype).items()}
        write_folder(self.out, stored, files, self.source, max_shard_bytes)

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What the checkpoint holds, by name."""
        skipped = {f"{name}.weight" for name in self.quantized} | set(self.model.all_tied_weights_keys)
        tensors = {name: tensor.to(dtype) for name, tensor in self.model.state_dict().items() if name not in skipped}
        for name, quantized in self.quantized.items():
            packed = self.layout.pack(quantized, self.schemes[name])
            tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in packed.items()}
        return tensors


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Written]:
    """Write a checkpoint of a tiny random model of some kind."""
    return lambda kind="llama-tied", **options: Written(tmp_path, kind, **options)


@pytest.fixture(params=sorted(CONFIGS))
def any_kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model in turn."""
    return str(request.param)
