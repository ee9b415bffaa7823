"""The C interface of the CUDA kernels, kernels/cuda/w4a16.h, as ctypes calls it. Nothing is compiled or loaded before
the first use.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_double, c_float, c_int, c_int64, c_void_p
from functools import cache
from types import SimpleNamespace
from typing import Any, NoReturn

from awqbench.errors import BackendUnavailable


class Gemm(ctypes.Structure):
    """AwqbenchGemm: fields, order and types must match it."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "tiles", "steps", "bias", "residual", "norm", "scratch", "y")),
        *((name, c_void_p) for name in ("workspace", "stream")),
        *((name, c_int64) for name in ("workspace_bytes", "m", "n", "k", "group", "x_stride")),
        *((name, c_int) for name in ("dtype", "variant", "before", "overlap")),
        ("eps", c_float),
    )


# Of awqbench_cuda_<name>: what it returns, and its arguments.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "error": (c_char_p, [c_int]),
    "dequantize": (c_int, [c_void_p] * 3 + [c_int64] * 3 + [c_int, c_void_p]),
    "gemm": (c_int, [c_void_p] * 6 + [c_int64] * 6 + [c_int] * 2 + [c_void_p]),
    "workspace": (c_int64, [c_int64] * 4 + [c_int]),
    "variants": (c_char_p, []),
    "fused": (c_int, [ctypes.POINTER(Gemm)]),
    "takes_in": (c_int, [c_int64] * 4 + [c_int] * 2),
    "rows": (c_int, [c_void_p] * 3 + [c_int64] * 3 + [c_float] + [c_int] * 3 + [c_void_p]),
    "prefill": (c_int, [c_void_p] * 6 + [c_int64] * 6 + [c_int] * 2 + [c_void_p]),
    "prefill_scratch": (c_int64, [c_int64] * 4 + [c_int] * 2),
    "prefill_variants": (c_char_p, []),
    "attend": (c_int, [c_void_p] * 11 + [c_int64] * 8 + [c_double] * 3 + [c_int] * 2 + [c_void_p]),
    "attend_workspace": (c_int64, [c_int64] * 5 + [c_int]),
}


@cache
def functions() -> SimpleNamespace:
    """All of them by their names. Raises BackendUnavailable where there is no library, or one that lacks a function."""
    from awqbench.ops.cuda_build import library  # `python -m` runs that module: importing it here would load it twice

    loaded, found = library(), SimpleNamespace()
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(loaded, f"awqbench_cuda_{name}")
        except AttributeError as error:
            raise BackendUnavailable(f"the CUDA kernels are incomplete: {error}") from None
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found


def raise_error(function: str, code: int, what: str) -> NoReturn:
    """RuntimeError with CUDA's message for the status that awqbench_cuda_<function> returned, and what it was asked."""
    raise RuntimeError(f"awqbench_cuda_{function}: {functions().error(code).decode()} ({what})")
