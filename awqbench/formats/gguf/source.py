"""A Hugging Face checkpoint, quantized or not, read one linear at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.config import layout_of, read_config, read_schemes
from awqbench.formats.layouts import Readable
from awqbench.formats.scheme import Scheme
from awqbench.formats.settings import QUANTIZATION, read_settings
from awqbench.formats.shards import Shards
from awqbench.formats.stored import StoredLinear, stored_linears
from awqbench.quantization.tensor import QuantizedTensor


@dataclass(frozen=True)
class Source:
    """A checkpoint folder: its config.json, its quantized linears by name, and its other tensors."""

    folder: Path
    config: Mapping[str, Any]
    shards: Shards
    layout: Readable | None
    linears: Mapping[str, StoredLinear]
    schemes: Mapping[str, Scheme]

    @classmethod
    def open(cls, folder: Path) -> Source:
        """Read the headers. Raises UserError for a folder that is no checkpoint or of a method not read here."""
        shards = Shards(folder)
        config = read_settings(folder)
        if not config.get(QUANTIZATION):
            return cls(folder, config, shards, None, {}, {})
        config = read_config(folder, to_multiply=True)
        layout = layout_of(config)
        found = {linear.name: linear for linear in stored_linears(shards, layout.name)}
        return cls(folder, config, shards, layout, found, read_schemes(config, found))

    def others(self) -> list[str]:
        """Names of the tensors that belong to no quantized linear, in the order of the files."""
        taken = {name for linear in self.linears.values() for name in linear.tensors.values()}
        return [name for name in self.shards.entries if name not in taken]

    def scheme(self, linear: str) -> Scheme:
        """A linear's scheme, symmetric where its zero points are all in the middle, whatever config.json says."""
        said = self.schemes[linear]
        zeros = self.linears[linear].zeros(self.shards)
        return replace(said, symmetric=zeros is None or bool((zeros == 1 << (said.bits - 1)).all()))

    def quantized(self, linear: str) -> QuantizedTensor:
        """Read a linear's codes, scales and zero points."""
        assert self.layout is not None  # there are no quantized linears without one
        mark = f"{linear}."
        names = {name.removeprefix(mark): name for name in self.linears[linear].tensors.values()}
        missing = [suffix for suffix in self.layout.SUFFIXES if suffix not in names]
        if missing and not (self.schemes[linear].symmetric and missing == ["weight_zero_point"]):
            raise UserError(f"{self.folder}: {linear}.{missing[0]} is missing")
        tensors = {suffix: self.shards.tensor(name) for suffix, name in names.items()}
        try:
            return self.layout.unpack(tensors, self.schemes[linear])
        except UserError as error:
            raise UserError(f"{self.folder}: {linear}: {error}") from None

    def tensor(self, name: str) -> Tensor:
        """Read an unquantized tensor, float32."""
        return self.shards.tensor(name).to(torch.float32)
