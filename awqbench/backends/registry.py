"""Backend kinds by name. Standard library only.

Other packages add kinds through the entry point group `awqbench.backends`; each entry point loads to a `Kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from awqbench.backends.base import Backend
from awqbench.backends.built_in import BUILT_IN
from awqbench.backends.kind import Kind
from awqbench.errors import BackendUnavailable, UserError, unknown_choice

ENTRY_POINTS = "awqbench.backends"


@cache
def kinds() -> Mapping[str, Kind]:
    """All kinds by name: this package's and those of installed plugins.

    Raises UserError for a plugin that does not load to a `Kind`, or that takes a name that is taken.
    """
    found = {kind.name: kind for kind in BUILT_IN}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        except Exception as error:
            raise UserError(f"the backend plugin {entry.name} ({entry.value}) cannot be imported: {error}") from error
        if not isinstance(kind, Kind):
            raise UserError(f"the backend plugin {entry.name} ({entry.value}) is {kind!r}, not an awqbench Kind")
        if kind.name in found:
            raise UserError(f"the backend plugin {entry.value} is called {kind.name}, which is taken")
        found[kind.name] = kind
    return found


def kind(name: str) -> Kind:
    """The kind of this name. Raises UserError naming the kinds there are."""
    if name not in kinds():
        raise unknown_choice("backend kind", name, kinds())
    return kinds()[name]


def create(target: str) -> Backend:
    """The backend at "module:Class", not loaded yet. Raises BackendUnavailable where its module cannot be imported."""
    module, _, name = target.partition(":")
    try:
        backend: Backend = getattr(import_module(module), name)()
    except ImportError as error:
        raise BackendUnavailable(f"{target} cannot be imported: {error}") from error
    return backend
