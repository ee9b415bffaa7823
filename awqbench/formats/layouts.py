"""The layouts that quantized linears can lie in on disk. Each is a module with the functions of `Layout`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from awqbench.errors import unknown_choice
from awqbench.formats import autoawq, compressed_tensors
from awqbench.formats.scheme import PER_CHANNEL, Scheme
from awqbench.quantization.tensor import QuantizedTensor

__all__ = ["ALIASES", "LAYOUTS", "PER_CHANNEL", "Layout", "Scheme", "layout"]


class Layout(Protocol):
    """What a writer or a reader of checkpoints needs to know of a layout."""

    name: str
    method: str  # quantization_config's quant_method
    SUFFIXES: tuple[str, ...]  # the tensors of a linear; the first stands for every quantized linear and for no other

    def refuse(self, scheme: Scheme) -> None:
        """Raise UserError, naming what the layout holds, when it cannot hold the scheme."""

    def fits(self, out: int, inputs: int, scheme: Scheme) -> bool:
        """Whether a linear [out, inputs] can be packed."""

    def pack(self, quantized: QuantizedTensor, scheme: Scheme) -> dict[str, Tensor]:
        """The tensors of a linear, by suffix."""

    def unpack(self, tensors: Mapping[str, Tensor], scheme: Scheme) -> QuantizedTensor:
        """The inverse of `pack`, exact to the bit. Raises UserError when the tensors contradict each other."""

    def config(self, schemes: Mapping[str, Scheme], not_converted: Sequence[str]) -> dict[str, Any]:
        """config.json's quantization_config for linears with these schemes, all named as on disk."""

    def schemes(self, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
        """What a quantization_config says of the linears named; UserError for what this project does not read."""


LAYOUTS: dict[str, Layout] = {module.name: module for module in (autoawq, compressed_tensors)}
ALIASES = {"awq": "autoawq"}


def layout(name: str) -> Layout:
    """The layout called `name` (also "awq"). Raises UserError naming those there are."""
    found = LAYOUTS.get(ALIASES.get(name, name))
    if found is None:
        raise unknown_choice("format", name, (*LAYOUTS, *ALIASES))
    return found
