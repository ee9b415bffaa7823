"""pip and uv: the commands that make an environment. Standard library only."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awqbench.environments.catalog import Recipe
from awqbench.environments.places import python_in
from awqbench.errors import UserError, unknown_choice

INSTALLERS = ("pip", "uv")


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what a person reads while it runs."""

    title: str
    command: tuple[str, ...]


def steps(recipe: Recipe, folder: Path, base: str, installer: str) -> Iterator[Step]:
    """The commands that make an environment at `folder` from the interpreter `base`, in their order."""
    if installer not in INSTALLERS:
        raise unknown_choice("installer", installer, INSTALLERS)
    uv = _uv() if installer == "uv" else ()
    yield Step("virtual environment", (base, "-m", "venv", *(("--without-pip",) if uv else ()), str(folder)))
    python = str(python_in(folder))
    # -P: a file called like one of pip's modules in the current folder must not be taken for it.
    install = (*uv, "pip", "install", "--python", python) if uv else (python, "-P", "-m", "pip", "install")
    if recipe.torch:
        yield Step(recipe.torch, (*install, recipe.torch))
    if recipe.requirements:
        yield Step(f"requirements of {recipe.file.name}", (*install, "-r", str(recipe.file)))
    if recipe.no_deps:
        yield Step(f"{' '.join(recipe.no_deps)} without dependencies", (*install, "--no-deps", *recipe.no_deps))
    if recipe.remove:
        uninstall = (
            (*uv, "pip", "uninstall", "--python", python) if uv else (python, "-P", "-m", "pip", "uninstall", "-y")
        )
        yield Step(f"removing {' '.join(recipe.remove)}", (*uninstall, *recipe.remove))


def _uv() -> tuple[str, ...]:
    if found := shutil.which("uv"):
        return (found,)
    if importlib.util.find_spec("uv"):
        return (sys.executable, "-m", "uv")
    raise UserError("uv is not installed: pip install uv, or leave --installer out, which is pip")
