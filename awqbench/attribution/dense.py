"""Any checkpoint as a plain model: every packed linear becomes the dense one that its codes stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awqbench.backends.pretrained import load_pretrained
from awqbench.errors import UserError
from awqbench.formats.config import layout_of
from awqbench.formats.layouts import Readable, Scheme
from awqbench.formats.load import load_with
from awqbench.formats.settings import QUANTIZATION, read_settings
from awqbench.modeling.experts import Experts, unfuse_experts
from awqbench.quantization.blocks import untranspose
from awqbench.quantization.mixed import bits_per_weight
from awqbench.quantization.tensor import QuantizedTensor


@dataclass(frozen=True, slots=True)
class Packed:
    """How a quantized linear was stored: bits of a code, and bytes of codes, scales and zero points together."""

    bits: int
    bytes: int


def load_candidate(folder: Path, trust_remote_code: bool = False) -> tuple[PreTrainedModel, dict[str, Packed]]:
    """A checkpoint's weights in float32, and how its quantized linears were stored, by name.

    Reads what `load_with` reads, activation orders included, and unquantized folders. Raises UserError for others.
    """
    if not _is_quantized(folder):
        return _plain(folder, trust_remote_code), {}
    packed: dict[str, Packed] = {}
    layout = layout_of(read_settings(folder))

    def dense(name: str, weight: QuantizedTensor, bias: Tensor | None) -> nn.Linear:
        packed[name] = _stored(weight, layout)
        return _dense(weight, bias)

    model = load_with(dense, folder, trust_remote_code=trust_remote_code)
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
    return bool(read_settings(folder).get(QUANTIZATION))


def _stored(weight: QuantizedTensor, layout: Readable) -> Packed:
    scheme = Scheme(weight.bits, weight.group_size, bool((weight.zeros == 1 << (weight.bits - 1)).all()))
    bits = bits_per_weight(layout.held(scheme), weight.codes.shape[1])
    return Packed(weight.bits, round(weight.codes.numel() * bits / 8))


def _dense(weight: QuantizedTensor, bias: Tensor | None) -> nn.Linear:
    out, inputs = weight.codes.shape
    dense = nn.Linear(inputs, out, bias=bias is not None, device="meta")
    dense.weight = nn.Parameter(weight.dequantize(), requires_grad=False)
    if bias is not None:
        dense.bias = nn.Parameter(bias, requires_grad=False)
    return dense
