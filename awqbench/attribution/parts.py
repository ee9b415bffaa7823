"""What is put back together: a linear, or another module whose weights the checkpoint changed; a block; a kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from awqbench.attribution.dense import Packed
from awqbench.record.attribution import By

# What float32 arithmetic leaves of a scale that is folded in and out again.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Part:
    """A module with weights of its own: `kind` is the last part of its name, `block` its place in the stack.

    `bytes` it takes in the checkpoint, `added_bytes` more with 16 bits a weight; None for those that already have them.
    """

    name: str
    kind: str
    block: int | None
    shape: tuple[int, ...]
    bits: int | None
    bytes: int
    added_bytes: int

    @property
    def group(self) -> dict[By, str]:
        """What it belongs to, by each `By`."""
        block = "outside the blocks" if self.block is None else f"block {self.block}"
        return {"linear": self.name, "block": block, "kind": self.kind}


def changed_parts(
    model: nn.Module, weights: Mapping[str, Tensor], packed: Mapping[str, Packed]
) -> tuple[list[Part], dict[str, Tensor]]:
    """The modules whose parameters differ from `weights`, in the model's order, and the differences by parameter.

    A difference is the model's value minus the one in `weights`. Tied parameters belong to the first module.
    """
    deltas: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        delta = parameter.detach() - weights[name]
        if float(delta.norm()) > _ROUNDING * float(weights[name].norm()):
            deltas[name] = delta
    owners = dict.fromkeys(name.rpartition(".")[0] for name in deltas)
    return [_part(name, model.get_submodule(name), packed.get(name)) for name in owners], deltas


def gathered(parts: Sequence[Part], by: By) -> dict[str, list[Part]]:
    """The parts by what they are put back with."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.group[by], []).append(part)
    return found


def _part(name: str, module: nn.Module, packed: Packed | None) -> Part:
    own = list(module.parameters(recurse=False))
    half = 2 * max(own, key=lambda parameter: parameter.dim()).numel()
    number = re.search(r"\.(\d+)\.", name)
    return Part(
        name=name,
        kind=name.rpartition(".")[2],
        block=int(number[1]) if number else None,
        shape=tuple(max(own, key=lambda parameter: parameter.dim()).shape),
        bits=packed.bits if packed else None,
        bytes=packed.bytes if packed else half,
        added_bytes=half - packed.bytes if packed else 0,
    )
