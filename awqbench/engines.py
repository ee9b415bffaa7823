"""Which interpreter an engine runs in, at which versions, and which engines differ from the reference's."""

from __future__ import annotations

from awqbench.backends.registry import kind
from awqbench.environments import Interpreter, resolve
from awqbench.errors import BackendUnavailable
from awqbench.record.files import content_key
from awqbench.spec import BackendSpec, RunSpec


def interpreter(backend: BackendSpec) -> Interpreter:
    """The interpreter of a backend. Raises BackendUnavailable naming the command that installs what is missing."""
    return resolve(kind(backend.kind), backend.python)


def engine_versions(backend: BackendSpec) -> dict[str, str] | None:
    """Versions of the packages that make a backend's figures; None while its environment is missing."""
    try:
        return dict(interpreter(backend).versions)
    except BackendUnavailable:
        return None


def parity_owners(spec: RunSpec) -> dict[str, str]:
    """Backend -> the backend whose parity cell speaks for it: one for all that run one engine alike.

    Only backends whose engine is not the reference's appear. Batch sizes and weights make no other engine.
    """
    if not spec.parity.enabled:
        return {}
    owners: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, backend in spec.backends.items():
        engine = kind(backend.kind).engine
        if engine is None or spec.role_of(name) == "reference":
            continue
        own = {key: value for key, value in backend.options.items() if key not in kind(backend.kind).weight_options}
        group = content_key([engine, own, backend.python, backend.dtype])
        owners[name] = first.setdefault(group, name)
    return owners
