"""Asking a Python interpreter what it has, from outside. Standard library only."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

# Runs in any Python 3.8 or newer. What libraries print while they are imported goes to standard error.
PROGRAM = """
import os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:] = [entry for entry in sys.path if entry]
import importlib, importlib.metadata, importlib.util, json
how, modules = sys.argv[1], sys.argv[2:]
failed = {}
for module in modules:
    try:
        if how == "import":
            importlib.import_module(module)
        elif importlib.util.find_spec(module) is None:
            failed[module] = "not found"
    except BaseException as error:
        failed[module] = type(error).__name__ + ": " + str(error)
packages, provides = {}, {}
for found in importlib.metadata.distributions():
    if found.metadata["Name"]:
        packages.setdefault(found.metadata["Name"], found.version)
if hasattr(importlib.metadata, "packages_distributions"):
    by_module = importlib.metadata.packages_distributions()
    provides = {module: by_module.get(module.partition(".")[0], []) for module in modules}
version = ".".join(map(str, sys.version_info[:3]))
json.dump({"python": version, "failed": failed, "packages": packages, "provides": provides}, answer)
answer.flush()
os._exit(0)
"""
LOOK_SECONDS = 120
IMPORT_SECONDS = 1800  # the first import of some engines compiles, and the machine may be busy


class NoInterpreter(Exception):
    """A path that is not a working Python interpreter; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an interpreter has: its version, the modules that failed with the reason, distributions with versions by
    normalized name, and the distributions that provide each module."""

    python: str
    failed: dict[str, str]
    packages: dict[str, str]
    provides: dict[str, list[str]]

    def providers(self) -> list[str]:
        """The distributions behind the modules asked for, in their order, each once."""
        return list(dict.fromkeys(name for names in self.provides.values() for name in names))


@cache
def look(python: str, modules: tuple[str, ...]) -> Answer:
    """Look for modules without importing them; asked once in a process. Raises NoInterpreter."""
    return _ask(python, "look", modules, LOOK_SECONDS)


def here(modules: tuple[str, ...]) -> Answer:
    """The same of the running interpreter, by what it has on its path now."""
    packages, providers = _installed_here()
    failed = {module: "not found" for module in modules if not found_here(module)}
    provides = {module: sorted({*map(normalized, providers.get(module.partition(".")[0], []))}) for module in modules}
    return Answer(platform.python_version(), failed, packages, provides)


def found_here(module: str) -> bool:
    """Whether the running interpreter can find a module; it is not imported, what it lies in may be."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _installed_here() -> tuple[dict[str, str], Mapping[str, list[str]]]:
    packages: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        packages.setdefault(normalized(found.metadata["Name"] or ""), found.version)
    return packages, importlib.metadata.packages_distributions()


def import_all(python: str, modules: tuple[str, ...]) -> Answer:
    """Import modules in a fresh process of that interpreter. Raises NoInterpreter."""
    return _ask(python, "import", modules, IMPORT_SECONDS)


def clean_environ() -> dict[str, str]:
    """The process's environment without what would mix one interpreter's modules into another's."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def normalized(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _ask(python: str, how: str, modules: tuple[str, ...], seconds: float) -> Answer:
    command = [python, "-c", PROGRAM, how, *modules]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=clean_environ(), check=False
        )
    except OSError as error:
        raise NoInterpreter(error.strerror or str(error)) from None
    except subprocess.TimeoutExpired:
        raise NoInterpreter(f"no answer in {seconds:.0f} s") from None
    try:
        found: dict[str, Any] = json.loads(done.stdout)
        packages = {normalized(name): version for name, version in found["packages"].items()}
        provides = {module: sorted({*map(normalized, names)}) for module, names in found["provides"].items()}
        return Answer(found["python"], found["failed"], packages, provides)
    except (ValueError, KeyError, TypeError, AttributeError):
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise NoInterpreter(f"exit status {done.returncode}: {last[:300]}") from None
