"""The quantized linears of a checkpoint folder as the headers of its files describe them; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.autoawq import GEMM, version
from awqbench.formats.gptq import unpack_zeros
from awqbench.formats.shards import Entry, Shards

_BITS = (2, 3, 4, 8)
_GPTQ = {"codes": "qweight", "scales": "scales", "zeros": "qzeros", "order": "g_idx"}
# Tensors of a linear by what they are, for each layout; the codes stand for every quantized linear and for no other.
ROLES: dict[str, dict[str, str]] = {
    "autoawq": {"codes": "qweight", "scales": "scales", "zeros": "qzeros"},
    "gptq": _GPTQ,
    "gptq-v2": _GPTQ,
    "compressed-tensors": {
        "codes": "weight_packed", "scales": "weight_scale", "zeros": "weight_zero_point", "shape": "weight_shape",
        "order": "weight_g_idx",
    },
}  # fmt: skip
METHODS = {"awq": "autoawq", "gptq": "gptq", "compressed-tensors": "compressed-tensors"}


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear [out, in] and the names of its tensors by role; `groups` are those of one row."""

    name: str
    layout: str
    shape: tuple[int, int]
    bits: int
    groups: int
    tensors: Mapping[str, str]

    @property
    def group_size(self) -> int:
        """How many weights share a scale; -1 where a row has a single scale."""
        return -1 if self.groups <= 1 else self.shape[1] // self.groups

    def scales(self, shards: Shards) -> Tensor | None:
        """The scales as stored, [groups, out] or [out, groups]."""
        name = self.tensors.get("scales")
        return None if name is None else shards.tensor(name)

    def zeros(self, shards: Shards) -> Tensor | None:
        """The integer zero points 0 .. 2**bits - 1 (uint8) in no particular order; None where the layout has none."""
        name = self.tensors.get("zeros")
        if name is None:
            return None
        stored = shards.tensor(name)
        if stored.dtype != torch.int32:  # not packed: signed integers around the middle of the codes
            return (stored.to(torch.int16) + (1 << (self.bits - 1))).to(torch.uint8)
        rows = stored.T if self.layout == "compressed-tensors" else stored
        return unpack_zeros(rows, self.bits, self.shape[0], less_one=self.layout == "gptq")


def found_layout(config: Mapping[str, Any], entries: Mapping[str, Entry]) -> str | None:
    """The layout that config.json names, else the one whose tensors are there; None for an unquantized folder.

    AutoAWQ's other layouts (GEMV has inputs and outputs the other way round) are told apart by their version.
    """
    said = config.get("quantization_config") or {}
    method = said.get("quant_method")
    if method in METHODS:
        if method == "awq" and (kind := version(said)) != GEMM:
            return f"{METHODS[method]}-{kind}"
        return "gptq-v2" if said.get("checkpoint_format") == "gptq_v2" else METHODS[method]
    if method:
        return str(method)
    suffixes = {name.rpartition(".")[2] for name in entries}
    if "weight_packed" in suffixes:
        return "compressed-tensors"
    if "qweight" in suffixes:
        return "gptq" if "g_idx" in suffixes else "autoawq"
    return None


def stored_linears(shards: Shards, layout: str, declared_bits: int = 4) -> list[StoredLinear]:
    """Every quantized linear, sorted by name. `declared_bits` decide where the shapes allow more than one answer."""
    roles = ROLES.get(layout, {})
    mark = f".{roles['codes']}" if roles else ""
    found = sorted(name.removesuffix(mark) for name in shards.entries if roles and name.endswith(mark))
    return [_describe(shards, layout, name, declared_bits) for name in found]


def _describe(shards: Shards, layout: str, name: str, declared_bits: int) -> StoredLinear:
    tensors = {
        role: f"{name}.{suffix}" for role, suffix in ROLES[layout].items() if f"{name}.{suffix}" in shards.entries
    }
    rows, columns = _matrix(shards.entries[tensors["codes"]])
    scales = _matrix(shards.entries[tensors["scales"]]) if "scales" in tensors else None
    if layout == "compressed-tensors":
        out, words = rows, columns
        if "shape" in tensors:
            if shards.entries[tensors["shape"]].shape != (2,):
                raise UserError(f"{tensors['shape']} does not hold two sizes")
            out, inputs = (int(size) for size in shards.tensor(tensors["shape"]).tolist())
        else:
            inputs = words * 32 // declared_bits
        fitting = [bits for bits in _BITS if -(-inputs * bits // 32) == words]
        bits = declared_bits if declared_bits in fitting or not fitting else fitting[0]
        groups = scales[1] if scales else 0
    elif layout.startswith("gptq"):
        out = columns
        inputs = shards.entries[tensors["order"]].elements if "order" in tensors else rows * 32 // declared_bits
        bits = rows * 32 // inputs if inputs else declared_bits
        groups = scales[0] if scales else 0
    else:
        inputs = rows
        out = scales[1] if scales else columns * 32 // declared_bits
        bits = columns * 32 // out if out else declared_bits
        groups = scales[0] if scales else 0
    return StoredLinear(name, layout, (out, inputs), bits if bits in _BITS else declared_bits, groups, tensors)


def _matrix(entry: Entry) -> tuple[int, int]:
    """A tensor's shape as rows and columns."""
    shape = entry.shape
    return (shape[0] if shape else 1, shape[1] if len(shape) > 1 else 1)
