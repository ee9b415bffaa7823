"""vLLM's kernels without vLLM: one shared library on torch's stable ABI, from an installed vLLM or from a path."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ENVIRONMENT = "AWQBENCH_VLLM_SO"
LIBRARY = "_C_stable_libtorch.abi3.so"
# vLLM's id of uint4 with a run-time zero point (vllm/scalar_type.py): the fields exponent, mantissa, signed, bias,
# finite_values_only and nan_repr in 8, 8, 1, 32, 1 and 8 bits; 4 mantissa bits, nan_repr 1.
UINT4 = 4 << 8 | 1 << 50


@cache
def load() -> str | None:
    """Register the operators, once; returns why that failed, or None."""
    path = os.environ.get(ENVIRONMENT)
    if path is None:
        spec = find_spec("vllm")
        if spec is None or spec.origin is None:
            return f"vllm is not installed, and {ENVIRONMENT} does not name its {LIBRARY}"
        path = str(Path(spec.origin).parent / LIBRARY)
    if not Path(path).is_file():
        return f"{path} does not exist ({ENVIRONMENT})"
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"{path} does not load: {str(error.__cause__ or error).splitlines()[0]}"
    return None


def operator(name: str) -> Any:
    """`torch.ops._C.<name>`; AttributeError where the library has none."""
    return getattr(torch.ops._C, name).default


def missing_operators(device: torch.device, *names: str) -> str | None:
    """Why these operators can't be called on a device, or None."""
    if device.type != "cuda":
        return "needs a GPU"
    if reason := load():
        return reason
    lacking = [name for name in names if not hasattr(torch.ops._C, name)]
    return f"this vLLM has no operator {', '.join(lacking)}" if lacking else None


def call(name: str, **values: Any) -> Any:
    """Call an operator by its arguments' names: vLLM adds and drops arguments between versions.

    Arguments of ours that the operator does not have are left out; TypeError where it has one that we don't know.
    """
    function = operator(name)
    arguments = []
    for argument in function._schema.arguments:
        if argument.name not in values and not argument.has_default_value():
            raise TypeError(f"vLLM's {name} wants an argument {argument.name!r} that is not known here")
        arguments.append(values.get(argument.name, argument.default_value))
    return function(*arguments)
