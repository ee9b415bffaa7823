"""awqbench: may this quantized language model ship?

The names below load on first use, so that a worker process, or a machine that has only torch and transformers, can
import the parts it needs without the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from awqbench import stats
    from awqbench.api import load_run, quantize, run
    from awqbench.attribution.api import attribute
    from awqbench.confirmation import confirm

_LAZY = {
    "attribute": "awqbench.attribution.api",
    "quantize": "awqbench.api",
    "run": "awqbench.api",
    "confirm": "awqbench.confirmation",
    "load_run": "awqbench.api",
    "stats": "awqbench.stats",
}

__all__ = ["__version__", "attribute", "confirm", "load_run", "quantize", "run", "stats"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'awqbench' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if _LAZY[name].endswith(f".{name}") else getattr(module, name)
