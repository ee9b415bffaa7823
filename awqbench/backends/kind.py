"""What can be said of a backend without starting it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Which weights a kind runs:
#   model   the unquantized model's folder; the engine may quantize it while loading
#   made    a checkpoint that awqbench makes, or one that is given
#   folder  a Hugging Face folder: another backend's checkpoint, a given one, or the model itself
#   gguf    a GGUF file: a given one, or one exported from what `folder` may be
#   server  none: they live behind an address
Weights = Literal["model", "made", "folder", "gguf", "server"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One backend kind.

    `target` is "module:Class" of a `Backend`; `modules` are what its interpreter must be able to import ("one|other":
    either of them), `environment` names the one of `awqbench env` that has them. Kinds with one `engine` share its
    differences from the reference's (None: it is the reference's engine). `options` maps each key that its options
    table may hold to what it does; those that choose weights, not how they are run, stand in `weight_options` too.
    `distributions` are the packages whose versions change figures.
    """

    name: str
    target: str
    summary: str
    weights: Weights
    engine: str | None = None
    modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    environment: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    weight_options: tuple[str, ...] = ()
