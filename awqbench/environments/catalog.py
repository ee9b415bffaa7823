"""What environments there are: `suites/environments`, read. Standard library only."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from awqbench.errors import UserError, unknown_choice
from awqbench.record.files import content_key
from awqbench.resources import content

ANY = "any"
VARIANTS = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into an environment on one sort of machine: `variant` is "cpu", "cuda", or "any" where all are alike.

    `file` holds the requirements in pip's format and `requirements` its lines without comments; `no_deps` is installed
    after them without its dependencies, then `remove` is taken out. `bytes` is the size once somebody measured it.
    """

    variant: str
    file: Path
    requirements: tuple[str, ...]
    no_deps: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    bytes: int | None = None

    @property
    def digest(self) -> str:
        """sha256 of all that decides what is installed; comments and the order of the lines don't."""
        return content_key([sorted(self.requirements), sorted(self.no_deps), sorted(self.remove)])

    @property
    def torch(self) -> str | None:
        """The line that pins torch, where there is one."""
        return next((line for line in self.requirements if line.startswith("torch==")), None)


@dataclass(frozen=True, slots=True)
class Definition:
    """One environment: what it is for, what must be importable in it, and its recipes by variant."""

    name: str
    summary: str
    kinds: tuple[str, ...]
    modules: tuple[str, ...]
    recipes: dict[str, Recipe]

    def recipe(self, variant: str | None = None) -> Recipe:
        """The recipe for a variant, or for this machine. Raises UserError naming the variants there are."""
        if variant is not None and variant not in self.recipes:
            raise unknown_choice(f"variant of the environment {self.name}", variant, self.recipes)
        if variant is None:
            variant = ANY if ANY in self.recipes else machine_variant()
        return self.recipes[variant]

    def recipe_of(self, variant: str, digest: str) -> Recipe | None:
        """The recipe that something was made with: its variant's, or an equal one where that variant is no more."""
        equal = (recipe for recipe in self.recipes.values() if recipe.digest == digest)
        return self.recipes.get(variant) or next(equal, None)


def definitions(folder: Path | None = None) -> dict[str, Definition]:
    """All environments by name, in the order of environments.toml."""
    place = folder or content("suites") / "environments"
    tables = tomllib.loads((place / "environments.toml").read_text(encoding="utf-8"))
    return {name: _definition(name, table, place) for name, table in tables.items()}


def definition(name: str) -> Definition:
    """One of them. Raises UserError naming them all."""
    found = definitions()
    if name not in found:
        raise unknown_choice("environment", name, found)
    return found[name]


@cache
def machine_variant() -> str:
    """ "cuda" where NVML shows an NVIDIA GPU, else "cpu"."""
    from awqbench.telemetry.gpu import NvmlGpus

    gpus = NvmlGpus()
    try:
        return "cuda" if gpus.names else "cpu"
    finally:
        gpus.close()


def _definition(name: str, table: dict[str, Any], place: Path) -> Definition:
    rest = dict(table)
    head = {key: rest.pop(key) for key in ("summary", "kinds", "modules") if key in rest}
    variants = {key: rest.pop(key) for key in VARIANTS if key in rest} or {ANY: {}}
    recipes = {variant: _recipe(name, variant, rest | special, place) for variant, special in variants.items()}
    try:
        return Definition(name, head["summary"], tuple(head["kinds"]), tuple(head["modules"]), recipes)
    except KeyError as missing:
        raise UserError(f"{place / 'environments.toml'}: [{name}] has no {missing}") from None


def _recipe(name: str, variant: str, table: dict[str, Any], place: Path) -> Recipe:
    allowed = ("requirements", "no_deps", "remove", "bytes")
    for key in table:
        if key not in allowed:
            raise unknown_choice(f"key of [{name}] in {place / 'environments.toml'}", key, allowed)
    file = place / table.get("requirements", f"{name}.txt")
    lines = (line.partition(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    requirements = tuple(line for line in lines if line and not line.startswith("#"))
    no_deps, remove = tuple(table.get("no_deps", ())), tuple(table.get("remove", ()))
    return Recipe(variant, file, requirements, no_deps, remove, table.get("bytes"))
