"""Tiny models of many families, their linears packed, so that each is a few milliseconds to decode."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from awqbench.ops import QuantizedLinear, cpu
from awqbench.quantization.tensor import QuantizedTensor

# Test modules are imported by path, so what they share gets a name of its own.
_spec = importlib.util.spec_from_file_location("runtime_steps", Path(__file__).with_name("steps.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules.setdefault("runtime_steps", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(sys.modules["runtime_steps"])

BASE = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", BASE),
    "llama-tied": ("LlamaConfig", {**BASE, "tie_word_embeddings": True, "attention_bias": True}),
    "llama3": ("LlamaConfig", {**BASE, "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 32}}),
    "mistral": ("MistralConfig", {**BASE, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", BASE),
    "qwen3": ("Qwen3Config", {**BASE, "head_dim": 24}),
    "gemma": ("GemmaConfig", {**BASE, "head_dim": 16}),
    "gemma2": ("Gemma2Config", {**BASE, "head_dim": 16, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "granite": ("GraniteConfig", {**BASE, "embedding_multiplier": 3.0, "residual_multiplier": 0.4,
                                  "logits_scaling": 2.5, "attention_multiplier": 0.3}),
    "olmo2": ("Olmo2Config", BASE),
    "phi3": ("Phi3Config", {**BASE, "sliding_window": None}),
    "gemma3": ("Gemma3TextConfig", {**BASE, "head_dim": 16, "sliding_window": 8, "num_hidden_layers": 3,
                                    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("GPT2Config", {"vocab_size": 101, "n_embd": 64, "n_layer": 2, "n_head": 4}, "no stack of layers"),
    "mixtral": ("MixtralConfig", {**BASE, "num_local_experts": 4}, r"mlp \(\w+\) has no gate_up_proj or gate_proj"),
    "cohere": ("CohereConfig", BASE, "no RMS norm"),
    "gpt-neox": ("GPTNeoXConfig", BASE, "layer 0's attention"),
    "ministral3": ("Ministral3Config", {**BASE, "head_dim": 16}, "reads positions itself"),
    "longrope": ("Phi3Config", {**BASE, "original_max_position_embeddings": 16, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 16}}, "depend on the length"),
}  # fmt: skip


def pack(linear: nn.Linear, bits: int, group: int, kernel: str = "auto") -> QuantizedLinear:
    """Round to nearest: what the integers are does not matter here."""
    weight = linear.weight.detach().float().view(linear.out_features, -1, group)
    low, high = weight.amin(-1), weight.amax(-1)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
    codes = (weight / scales.float()[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1).to(torch.uint8)
    quantized = QuantizedTensor(codes.flatten(1), scales, zeros, bits, group)
    return QuantizedLinear(quantized, linear.bias, kernel=kernel, dtype=linear.weight.dtype)


def build(
    name: str, settings: dict[str, Any], bits: int = 4, group: int = 32, kernel: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> Any:  # fmt: skip
    """A random model with norms, biases and embeddings that say something, its layers' linears packed."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
    model.requires_grad_(False)
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))
        elif "embed" in parameter_name or "lm_head" in parameter_name:
            parameter.copy_(parameter.half().float())  # as a checkpoint stores them
        else:
            parameter.mul_(4)
    model.to(dtype)
    for linear_name, module in list(model.named_modules()):
        if type(module) is nn.Linear and "layers" in linear_name and module.in_features % group == 0:
            model.set_submodule(linear_name, pack(module, bits, group, kernel))
    return model


@pytest.fixture
def native_kernel() -> None:
    """Nothing is decoded natively where the kernel cannot be built."""
    if reason := cpu.unavailable():
        pytest.skip(reason)


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """make_model(family, **changes to its config), packed to 4 bits."""

    def make(
        family: str, bits: int = 4, group: int = 32, kernel: str = "auto", dtype: torch.dtype = torch.float32,
        **changes: Any,
    ) -> Any:  # fmt: skip
        name, settings, *_ = {**CONFIGS, **REFUSED}[family]
        return build(name, {**settings, **changes}, bits, group, kernel, dtype)

    return make


@pytest.fixture
def refused() -> Callable[[str], re.Pattern[str]]:
    """refused(family): what the reason says."""
    return lambda family: re.compile(REFUSED[family][2])


class Recorder:
    """What a CUDA graph does, on the CPU: a captured step is a list of operations on tensors of fixed places.

    A replay runs these operations, not the step: what Python computed while capturing stays as it was. As in a capture,
    a step must not read a value from a tensor.
    """

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def __call__(self, step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        with torch.no_grad(), _Tape() as tape:
            output = step()
        self.captures += 1

        def replay() -> torch.Tensor:
            self.replays += 1
            tape.play()
            return output

        return replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        for func, args, kwargs, out in self.calls:
            aliases = [returned.alias_info for returned in func._schema.returns]
            if any(alias is not None and not alias.is_write for alias in aliases):
                continue  # a view: where it points to has not changed
            again = func(*args, **kwargs)
            if not any(aliases):
                flat = (out, again) if isinstance(out, tuple | list) else ([out], [again])
                for old, new in zip(*flat, strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


@pytest.fixture
def recorder() -> Recorder:
    """Captures steps without a GPU; counts captures and replays."""
    return Recorder()
