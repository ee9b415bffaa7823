"""Making an environment: install, import what it is for, and then say that it is finished. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from awqbench.environments.catalog import Definition, Recipe, definition
from awqbench.environments.installers import Step, steps
from awqbench.environments.interpreter import Answer, NoInterpreter, clean_environ, import_all, look
from awqbench.environments.places import Made, lock, python_in, read_marker, root, tree_bytes, write_marker
from awqbench.environments.status import State, delete, log_path, replaced, state
from awqbench.errors import UserError

OLDEST = (3, 11)  # what the worker's own code needs
TAIL_LINES = 12
# Wheels lie on the disk beside what is unpacked from them.
DISK_FACTOR = 2
DISK_AT_LEAST = 10**9

CPU_INDEX = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"

Watch = Callable[[str, str], None]


class InstallFailed(UserError):
    """An installer failed, or what it installed cannot be imported; `tail` holds the last lines that were said."""

    def __init__(self, message: str, tail: list[str]) -> None:
        super().__init__(message)
        self.tail = tail


@dataclass(frozen=True, slots=True)
class Plan:
    """What making an environment would do. `needs_bytes` of `free_bytes` on the disk of `folder` are required."""

    definition: Definition
    recipe: Recipe
    folder: Path
    base: str
    installer: str
    steps: tuple[Step, ...]
    needs_bytes: int
    free_bytes: int


def plan(name: str, installer: str = "pip", python: str | None = None, variant: str | None = None) -> Plan:
    """What `create` would do; changes nothing.

    Raises UserError for an unknown name, installer or variant, and for a `python` that can make no environment.
    """
    found = definition(name)
    recipe = found.recipe(variant)
    folder = root() / name
    base = _base(python)
    needs = DISK_FACTOR * recipe.bytes if recipe.bytes else DISK_AT_LEAST
    todo = tuple(steps(recipe, folder, base, installer))
    return Plan(found, recipe, folder, base, installer, todo, needs, shutil.disk_usage(folder.parent).free)


def create(
    name: str,
    installer: str = "pip",
    python: str | None = None,
    variant: str | None = None,
    force: bool = False,
    watch: Watch = lambda step, line: None,
) -> State:
    """Make an environment and return its state; one that is ready already is left as it is unless `force`.

    `installer` is pip or uv, `python` the interpreter it is made from (default: this one), `variant` cpu or cuda
    (default: what this machine is). `watch(step, line)` is called with every line an installer says. An incomplete or
    outdated environment is replaced; the one that was there stays until the new one is finished, and comes back when
    that fails. Raises UserError (InstallFailed with the last lines) when it cannot be made; nothing ready is left then.
    """
    todo = plan(name, installer, python, variant)
    with lock(name) as held:
        _sweep(todo.folder)
        if force or not _is_made(todo, variant):
            _replace(todo, held, watch)
    return state(name)


def _replace(todo: Plan, held: int, watch: Watch) -> None:
    """Make it, with what was there before kept aside until it is finished."""
    if todo.free_bytes < todo.needs_bytes:
        raise UserError(
            f"the environment {todo.definition.name} needs {todo.needs_bytes / 1e9:.1f} GB while it is made, "
            f"{todo.folder.parent} has {todo.free_bytes / 1e9:.1f} GB: free some, or set AWQBENCH_ENVIRONMENTS to "
            "a folder of another disk"
        )
    old = replaced(todo.folder)
    if todo.folder.exists():
        todo.folder.rename(old)
    try:
        _make(todo, held, watch)
    except BaseException:
        delete(todo.folder)
        if old.exists():
            old.rename(todo.folder)
        raise
    delete(old)
    look.cache_clear()


def _sweep(folder: Path) -> None:
    """After a kill: the environment that was being replaced comes back where no finished one took its place."""
    old = replaced(folder)
    if old.exists() and read_marker(folder) is None:
        delete(folder)
        old.rename(folder)
    delete(old)


def _make(todo: Plan, held: int, watch: Watch) -> None:
    """Run the steps and write the marker."""
    name = todo.definition.name
    started = time.monotonic()
    with log_path(name).open("w", encoding="utf-8") as log:
        for step in todo.steps:
            _run(step, log, held, name, watch)
    modules = todo.definition.modules
    watch(f"importing {', '.join(modules)}", "")
    answer = _imported(todo, modules)
    made = Made(
        name=name,
        variant=todo.recipe.variant,
        digest=todo.recipe.digest,
        python=answer.python,
        installer=todo.installer,
        packages=dict(sorted(answer.packages.items())),
        main=answer.providers(),
        bytes=tree_bytes(todo.folder),
        seconds=round(time.monotonic() - started, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_marker(todo.folder, made)


def _imported(todo: Plan, modules: tuple[str, ...]) -> Answer:
    """Import what the environment is for with its own interpreter."""
    name = todo.definition.name
    try:
        answer = import_all(str(python_in(todo.folder)), modules)
    except NoInterpreter as error:
        raise InstallFailed(f"the environment {name} does not run what was installed: {error}", []) from None
    if answer.failed:
        said = [f"{module}: {reason}" for module, reason in answer.failed.items()]
        message = f"the environment {name} was installed and cannot import {', '.join(answer.failed)}"
        raise InstallFailed(message, "\n".join(said).splitlines()[-TAIL_LINES:])
    return answer


def _run(step: Step, log: IO[str], held: int, name: str, watch: Watch) -> None:
    """One command, its output into the log and line by line to the watcher; ended with its children on any error."""
    log.write(f"$ {' '.join(step.command)}\n")
    log.flush()
    watch(step.title, "")
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    quiet = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}
    process = subprocess.Popen(
        step.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=clean_environ() | quiet, pass_fds=(held,), start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            tail.append(line.rstrip())
            watch(step.title, line.strip())
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if status != 0:
        message = f"cannot make the environment {name}: {step.title}: exit status {status} (all of it: {log.name})"
        if any(re.search(r"torch==\S*\+cpu", line) for line in tail):
            message += f"; CPU builds of torch have an index of their own: {CPU_INDEX}"
        raise InstallFailed(message, list(tail))


def _is_made(todo: Plan, variant: str | None) -> bool:
    """Whether the environment is finished and what is asked for; without a variant, whichever it was made with."""
    made = read_marker(todo.folder)
    if made is None or not os.access(python_in(todo.folder), os.X_OK):
        return False
    recipe = todo.definition.recipe_of(made.variant, made.digest)
    return recipe is not None and recipe.digest == made.digest and (variant is None or recipe == todo.recipe)


def _base(python: str | None) -> str:
    """The interpreter to make an environment from, checked where somebody named one."""
    if python is None:
        return sys.executable
    path = os.path.abspath(os.path.expanduser(python)) if os.sep in python else shutil.which(python)
    if path is None or not os.path.isfile(path):
        raise UserError(f"no Python interpreter at {python!r} (allowed: a path, or a name on the PATH)")
    try:
        answer = look(path, ("venv",))
    except NoInterpreter as error:
        raise UserError(f"{python!r} is no Python interpreter: {error}") from None
    if tuple(map(int, answer.python.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(f"{python!r} is Python {answer.python}: an environment needs {oldest} or newer")
    if answer.failed:
        raise UserError(f"{python!r} lacks the module venv (Debian, Ubuntu: apt-get install python3-venv)")
    return path
