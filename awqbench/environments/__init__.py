"""Which interpreter runs which engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from awqbench.backends.registry import Kind
from awqbench.errors import BackendUnavailable


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and the versions of an engine's packages in it."""

    path: str
    versions: Mapping[str, str]
    origin: str


def resolve(kind: Kind, python: str | None) -> Interpreter:
    """The interpreter of a kind."""
    if python:
        return Interpreter(python, {}, "given")
    missing = [module for module in kind.modules if find_spec(module) is None]
    if missing:
        raise BackendUnavailable(f"{kind.name} needs {missing[0]}: awqbench env create {kind.environment}")
    versions = {}
    for name in kind.distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Interpreter(sys.executable, versions, "core")
