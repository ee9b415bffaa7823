"""Which environments exist, and whether they are what their definitions say. Standard library only."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from awqbench.environments.catalog import Definition, Recipe, definition, definitions
from awqbench.environments.places import MARKER, Made, lock, locked_by, python_in, read_marker, root
from awqbench.errors import UserError

Status = Literal["ready", "missing", "incomplete", "outdated"]


@dataclass(frozen=True, slots=True)
class State:
    """One environment on this machine; `recipe` is the one it was made with, or the one this machine would get.

    incomplete: making it was interrupted, or goes on right now. outdated: its definition has changed since.
    """

    definition: Definition
    recipe: Recipe
    folder: Path
    status: Status
    made: Made | None = None
    note: str = ""

    @property
    def python(self) -> Path:
        """Its interpreter, which may not be there."""
        return python_in(self.folder)


def state(name: str) -> State:
    """The state of one environment. Raises UserError for a name that is not defined."""
    return _state(definition(name))


def states() -> list[State]:
    """The state of every environment that is defined."""
    return [_state(found) for found in definitions().values()]


def interpreter_of(name: str) -> Path | None:
    """The interpreter of an environment that is ready, else None."""
    found = state(name)
    return found.python if found.status == "ready" else None


def create_command(name: str) -> str:
    """What to type to make an environment."""
    return f"awqbench env create {name}"


def remove(name: str) -> bool:
    """Delete an environment, finished or not; False where there was none. Raises UserError while it is being made."""
    folder = root() / definition(name).name
    with lock(name):
        there = folder.exists()
        for path in (folder, replaced(folder)):
            delete(path)
        log_path(name).unlink(missing_ok=True)
    return there


def replaced(folder: Path) -> Path:
    """Where an environment waits while its successor is made."""
    return folder.with_name(f".{folder.name}.replaced")


def log_path(name: str) -> Path:
    """What the installers said when an environment was made last."""
    return root() / f"{name}.log"


def delete(folder: Path) -> None:
    """Remove a folder with all it holds; the marker first, so that a half-deleted one is not taken for finished."""
    if not folder.exists():
        return
    (folder / MARKER).unlink(missing_ok=True)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {error.strerror}: {error.filename}") from None


def _state(found: Definition) -> State:
    folder = root() / found.name
    owner = locked_by(found.name)
    if not folder.exists():
        note = f"process {owner} begins to make it" if owner else ""
        return State(found, found.recipe(), folder, "missing", note=note)
    if owner:
        return State(found, found.recipe(), folder, "incomplete", note=f"process {owner} is making it")
    made = read_marker(folder)
    if made is None:
        return State(found, found.recipe(), folder, "incomplete", note="making it was interrupted")
    recipe = found.recipe_of(made.variant, made.digest)
    if not os.access(python_in(folder), os.X_OK):
        return State(found, recipe or found.recipe(), folder, "incomplete", made, "the Python it was made with is gone")
    if recipe is None or recipe.digest != made.digest:
        return State(found, recipe or found.recipe(), folder, "outdated", made, "its requirements have changed since")
    return State(found, recipe, folder, "ready", made)
