"""Python environments for engines that cannot live beside awqbench: made, listed, and found again for a backend."""

from __future__ import annotations

from awqbench.environments.catalog import Definition, definition, definitions
from awqbench.environments.making import InstallFailed, Plan, create, plan
from awqbench.environments.resolution import Interpreter, resolve
from awqbench.environments.status import State, create_command, interpreter_of, remove, state, states

__all__ = [
    "Definition", "InstallFailed", "Interpreter", "Plan", "State", "create", "create_command", "definition",
    "definitions", "interpreter_of", "plan", "remove", "resolve", "state", "states",
]  # fmt: skip
