"""Any checkpoint as a plain model: every packed linear becomes the dense one that its codes stand for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from awqbench.backends.pretrained import load_pretrained
from awqbench.errors import UserError
from awqbench.formats.config import CONFIG, QUANTIZATION
from awqbench.formats.load import load_quantized
from awqbench.modeling.experts import Experts, unfuse_experts
from awqbench.ops.dequantize import dequantize_rows
from awqbench.ops.linear import QuantizedLinear
from awqbench.quantization.blocks import untranspose


@dataclass(frozen=True, slots=True)
class Packed:
    """How a quantized linear was stored: bits of a code, and bytes of codes, scales and zero points together."""

    bits: int
    bytes: int


def load_candidate(folder: Path, trust_remote_code: bool = False) -> tuple[PreTrainedModel, dict[str, Packed]]:
    """A checkpoint's weights in float32, and how its quantized linears were stored, by name.

    Reads what `load_quantized` reads, and unquantized folders. Raises UserError for others.
    """
    if not _is_quantized(folder):
        return _plain(folder, trust_remote_code), {}
    model = load_quantized(folder, torch.float32, kernel="dequantize", trust_remote_code=trust_remote_code)
    packed = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            packed[name] = _stored(module)
            model.set_submodule(name, _dense(module))
    untranspose(model)
    return model, packed


def load_reference(folder: Path, candidate: nn.Module, trust_remote_code: bool = False) -> PreTrainedModel:
    """The full-precision model in float32, its experts apart where the candidate's are."""
    if _is_quantized(folder):
        raise UserError(f"the reference {folder} is quantized itself (allowed: a full-precision model)")
    model = _plain(folder, trust_remote_code)
    for name, module in candidate.named_modules():
        if isinstance(module, Experts) and not isinstance(model.get_submodule(name), Experts):
            unfuse_experts(model.get_submodule(name.rpartition(".")[0]))
    return model


def _plain(folder: Path, trust_remote_code: bool) -> PreTrainedModel:
    options = {"weights": str(folder), "trust_remote_code": trust_remote_code}
    model = cast(PreTrainedModel, load_pretrained(options, torch.float32))
    untranspose(model)
    return model.eval().requires_grad_(False)


def _is_quantized(folder: Path) -> bool:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"no checkpoint at {folder}: {CONFIG}: {error}") from None
    return bool(config.get(QUANTIZATION)) or (folder / "quant_config.json").is_file()


def _stored(linear: QuantizedLinear) -> Packed:
    weights, groups = linear.out_features * linear.in_features, linear.scales.numel()
    return Packed(linear.bits, (weights * linear.bits + groups * (16 + linear.bits)) // 8)


def _dense(linear: QuantizedLinear) -> nn.Linear:
    dense = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    codes, zeros = linear.get_buffer("codes"), linear.get_buffer("zeros")
    weight = dequantize_rows(codes, linear.scales, zeros, linear.in_features, linear.group_size, linear.width)
    dense.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        dense.bias = nn.Parameter(linear.bias, requires_grad=False)
    return dense
