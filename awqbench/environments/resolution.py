"""Which Python interpreter runs a backend of a kind, and what it holds. Standard library only."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from awqbench.environments.catalog import definitions
from awqbench.environments.interpreter import Answer, NoInterpreter, here, look, normalized
from awqbench.environments.making import OLDEST
from awqbench.environments.status import create_command, state
from awqbench.errors import BackendUnavailable

if TYPE_CHECKING:
    from awqbench.backends.kind import Kind

# The worker moves its arrays with it, whatever the engine.
WORKER_MODULES = ("numpy",)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that has what a kind needs.

    `versions` holds those of the kind's distributions that are installed, by the names the kind gives them; of a kind
    that names none, the distributions that provide its modules. `origin`: the interpreter that runs awqbench, an
    environment of ours, or one that the spec names.
    """

    path: str
    versions: Mapping[str, str]
    origin: Literal["core", "environment", "given"]


def resolve(kind: Kind, python: str | None = None) -> Interpreter:
    """The interpreter given, else the running one where it has the kind's modules, else the kind's environment.

    Nothing is imported. Raises BackendUnavailable with one line: what is missing, and the command that installs it.
    """
    if python:
        return _given(kind, python)
    answer = here(_alternatives(kind))
    absent = _lacking(kind, answer)
    return _environment(kind, absent) if absent else _interpreter(kind, sys.executable, answer, "core")


def _alternatives(kind: Kind) -> tuple[str, ...]:
    """Every module to look for: each of `one|other` may stand in for the other."""
    return (*(name for module in kind.modules for name in module.split("|")), *WORKER_MODULES)


def _lacking(kind: Kind, answer: Answer) -> list[str]:
    wanted = (*kind.modules, *WORKER_MODULES)
    return [m.replace("|", " or ") for m in wanted if all(name in answer.failed for name in m.split("|"))]


def _given(kind: Kind, python: str) -> Interpreter:
    # Links are not followed: a virtual environment's interpreter is a link to one that lacks its packages.
    whose = f"python of the kind {kind.name!r}"
    path = os.path.abspath(os.path.expanduser(python)) if os.sep in python else shutil.which(python)
    if path is None or not os.path.isfile(path):
        raise BackendUnavailable(f"{python} ({whose}): there is no such interpreter")
    try:
        answer = look(path, _alternatives(kind))
    except NoInterpreter as error:
        raise BackendUnavailable(f"{path} ({whose}) is no Python interpreter: {error}") from None
    if tuple(map(int, answer.python.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendUnavailable(f"{path} ({whose}) is Python {answer.python}: {oldest} or newer is needed")
    if absent := _lacking(kind, answer):
        other = f", or leave `python` out and run: {create_command(kind.environment)}" if kind.environment else ""
        raise BackendUnavailable(f"{path} ({whose}) lacks {', '.join(absent)}: install it there{other}")
    return _interpreter(kind, path, answer, "given")


def _environment(kind: Kind, absent: list[str]) -> Interpreter:
    lacks = f"the kind {kind.name!r} needs {', '.join(absent)}, which this Python lacks"
    if kind.environment is None or kind.environment not in definitions():
        raise BackendUnavailable(f"{lacks}: install it beside awqbench, or give the backend a `python` that has it")
    found = state(kind.environment)
    make = create_command(kind.environment)
    if found.status != "ready":
        because = f" (the environment is {found.status}: {found.note})" if found.note else ""
        raise BackendUnavailable(f"{lacks}{because}; run: {make}")
    try:
        answer = look(str(found.python), _alternatives(kind))
    except NoInterpreter as error:
        broken = f"the environment {kind.environment} is broken ({error})"
        raise BackendUnavailable(f"{broken}; run: {make} --force") from None
    if gone := ", ".join(_lacking(kind, answer)):
        raise BackendUnavailable(f"the environment {kind.environment} lacks {gone}; run: {make} --force")
    return _interpreter(kind, str(found.python), answer, "environment")


def _interpreter(kind: Kind, path: str, answer: Answer, origin: Literal["core", "environment", "given"]) -> Interpreter:
    own = (alternative for module in kind.modules for alternative in module.split("|"))
    names = kind.distributions or tuple(name for module in own for name in answer.provides.get(module, ()))
    versions = {name: found for name in names if (found := answer.packages.get(normalized(name)))}
    return Interpreter(path, versions, origin)
