"""Backend kinds and where they live. Standard library only."""

from __future__ import annotations

from importlib import import_module

from awqbench.backends.base import Backend
from awqbench.errors import unknown_choice

_BACKENDS = {
    "reference": "awqbench.backends.reference:ReferenceBackend",
    **dict.fromkeys(("awq", "rtn", "gptq", "awq+gptq"), "awqbench.backends.packed:PackedBackend"),
}


def create(kind: str) -> Backend:
    """A backend of this kind, not loaded yet. Raises UserError naming the kinds there are."""
    if kind not in _BACKENDS:
        raise unknown_choice("backend kind", kind, _BACKENDS)
    module, _, name = _BACKENDS[kind].partition(":")
    backend: Backend = getattr(import_module(module), name)()
    return backend
