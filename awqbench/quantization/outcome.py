"""A finished block as it goes to disk: packed linears, and every other tensor that the quantizer changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from awqbench.formats.layouts import Layout, Scheme
from awqbench.modeling.weights import Weights
from awqbench.quantization.blockwise import BlockResult

FOLDED = "folded:"  # prefix of the tensors that stand in for a linear which mixed precision may keep


@dataclass(frozen=True, slots=True)
class Storage:
    """How tensors are named and packed: the layout, the scheme, and linears whose name on disk is another."""

    weights: Weights
    layout: Layout
    scheme: Scheme
    disk_names: Mapping[str, str]

    def on_disk(self, linear: str) -> str:
        """A linear's name in the checkpoint: that of its source, where the source has it as one tensor."""
        if linear in self.disk_names:
            return self.disk_names[linear]
        sources = self.weights.sources.get(f"{linear}.weight", [])
        if len(sources) == 1 and not self.weights.names.merged(sources[0]):
            return sources[0].removesuffix(".weight")
        return linear

    def block(self, prefix: str, result: BlockResult, transposed: set[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of a finished block to keep, by name on disk, and its record.

        The record's `replaces` names the tensors of the source that must not be copied any more. `transposed` are the
        linears that the architecture stores as [in, out].
        """
        tensors: dict[str, Tensor] = {}
        replaces: set[str] = set()
        for name, quantized in result.quantized.items():
            packed = self.layout.pack(quantized, self.scheme)
            tensors |= {f"{self.on_disk(name)}.{suffix}": tensor.cpu() for suffix, tensor in packed.items()}
            replaces |= self._sources(f"{name}.weight")
        for name, weight in result.folded.items():
            weight = weight.T if name in transposed else weight
            tensors[f"{FOLDED}{name}"] = self._half(weight, f"{name}.weight")
        for name, parameter in self.weights.model.get_submodule(prefix).named_parameters(prefix):
            owner, _, leaf = name.rpartition(".")
            if leaf == "weight" and owner in result.quantized:
                continue
            value = parameter.data.T if leaf == "weight" and owner in transposed else parameter.data
            stored, sources = self._changed(name, owner, value)
            if stored is not None:
                tensors[self._name(name, owner)] = stored
                replaces |= sources
        replaces |= self._sources_of_unfused(prefix)
        record = {
            "quantized": {name: self.on_disk(name) for name in result.quantized},
            "replaces": sorted(replaces),
            "transposed": sorted(transposed),
            "linears": result.linears,
            "groups": result.groups,
            "warnings": result.warnings,
        }
        return tensors, record

    def _name(self, parameter: str, owner: str) -> str:
        if owner in self.disk_names:
            return f"{self.disk_names[owner]}.{parameter.rpartition('.')[2]}"
        sources = self.weights.sources.get(parameter, [])
        return sources[0] if len(sources) == 1 and not self.weights.names.merged(sources[0]) else parameter

    def _changed(self, name: str, owner: str, value: Tensor) -> tuple[Tensor | None, set[str]]:
        """What to store of a parameter that is not quantized, or None where the source has it just so."""
        if value.dim() > 2 and owner not in self.disk_names:
            return None, set()  # fused experts: nothing is ever folded into them
        original = None if owner in self.disk_names else self.weights.original(name)
        if original is None:
            return self._stored(value, self._source_dtype(name), owner), self._sources(name)
        if torch.equal(original.to(value.dtype), value.cpu()):
            return None, set()
        return self._stored(value, original.dtype, owner), self._sources(name)

    def _stored(self, value: Tensor, dtype: torch.dtype, owner: str) -> Tensor:
        """In the source's type where that loses nothing, or where the type is what keeping the linear means."""
        stored = value.to(dtype)
        is_linear = isinstance(self.weights.model.get_submodule(owner), nn.Linear)
        if (is_linear and value.dim() > 1) or torch.equal(stored.to(value.dtype), value):
            return stored.cpu().clone()
        return value.cpu().clone()  # a norm with a scale folded in, say

    def _half(self, weight: Tensor, name: str) -> Tensor:
        return weight.to(self._source_dtype(name)).cpu().clone()

    def _source_dtype(self, name: str) -> torch.dtype:
        """The type of a parameter's first source; of any tensor of the model for experts made out of fused ones."""
        sources = self.weights.sources.get(name) or next(iter(self.weights.sources.values()))
        return self.weights.files.entries[sources[0]].torch_dtype

    def _sources(self, parameter: str) -> set[str]:
        return set(self.weights.sources.get(parameter, ()))

    def _sources_of_unfused(self, prefix: str) -> set[str]:
        """Sources of parameters that the block no longer has, since their experts became linears of their own."""
        present = {name for name, _ in self.weights.model.get_submodule(prefix).named_parameters(prefix)}
        return {
            name
            for target, names in self.weights.sources.items()
            if target.startswith(f"{prefix}.") and target not in present and target not in self.weights.buffers
            for name in names
        }
