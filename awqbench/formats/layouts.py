"""The layouts that quantized linears can lie in on disk: those that are written, and GPTQ's, which is read only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from awqbench.errors import UserError, unknown_choice
from awqbench.formats import autoawq, compressed_tensors, gptq
from awqbench.formats.scheme import PER_CHANNEL, Scheme
from awqbench.quantization.tensor import QuantizedTensor

__all__ = ["ALIASES", "LAYOUTS", "PER_CHANNEL", "READABLE", "Layout", "Readable", "Scheme", "layout", "readable"]


class Readable(Protocol):
    """What a reader of checkpoints needs to know of a layout."""

    name: str
    method: str  # quantization_config's quant_method
    SUFFIXES: tuple[str, ...]  # the tensors of a linear; the first stands for every quantized linear and for no other

    def unpack(self, tensors: Mapping[str, Tensor], scheme: Scheme) -> QuantizedTensor:
        """What the tensors of a linear say, exact to the bit. Raises UserError when they contradict each other."""

    def schemes(self, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scheme]:
        """What a quantization_config says of the linears named; UserError for what this project does not read."""

    def held(self, scheme: Scheme) -> Scheme:
        """The scheme by whose arithmetic a linear takes room in the file."""


class Layout(Readable, Protocol):
    """What a writer needs to know as well."""

    def refuse(self, scheme: Scheme) -> None:
        """Raise UserError, naming what the layout holds, when it cannot hold the scheme."""

    def fits(self, out: int, inputs: int, scheme: Scheme) -> bool:
        """Whether a linear [out, inputs] can be packed."""

    def pack(self, quantized: QuantizedTensor, scheme: Scheme) -> dict[str, Tensor]:
        """The tensors of a linear, by suffix; `unpack` is the inverse."""

    def config(self, schemes: Mapping[str, Scheme], not_converted: Sequence[str]) -> dict[str, Any]:
        """config.json's quantization_config for linears with these schemes, all named as on disk."""


LAYOUTS: dict[str, Layout] = {module.name: module for module in (autoawq, compressed_tensors)}
READABLE: tuple[Readable, ...] = (*LAYOUTS.values(), gptq.FIRST, gptq.SECOND)
ALIASES = {"awq": "autoawq"}


def layout(name: str) -> Layout:
    """The layout called `name` (also "awq"). Raises UserError naming those there are."""
    found = LAYOUTS.get(ALIASES.get(name, name))
    if found is None:
        raise unknown_choice("format", name, (*LAYOUTS, *ALIASES))
    return found


def readable(quantization: Mapping[str, Any]) -> Readable:
    """The layout that a quantization_config names. Raises UserError for other quantization methods."""
    method = quantization.get("quant_method")
    if method == gptq.METHOD:
        return gptq.version(quantization)
    for found in LAYOUTS.values():
        if found.method == method:
            return found
    allowed = ", ".join(dict.fromkeys(each.method for each in READABLE))
    raise UserError(f"it is quantized by {method}, which is not read here (allowed: {allowed})")
