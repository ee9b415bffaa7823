"""torchao's weight-only formats that a CPU multiplies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.torchao import TorchAoBackend
from awqbench.errors import UserError

Opened = Callable[..., AbstractContextManager[Any]]
Expected = Callable[[Path | None], np.ndarray]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"config": "int2"}, r"unknown option config 'int2'.* \(allowed: int4, int8\)"),
        ({"group_size": 48}, r"unknown option group_size 48 \(allowed: 128, 256, 32, 64\)"),
        ({"config": "int8", "group_size": 64}, r"option group_size is one of int4, and config is 'int8'"),
        ({"group_size": 128}, r"q_proj has 64 inputs, not a multiple of group_size 128"),
    ],
)
def test_wrong_options_are_named(tiny_llama: Path, settings: dict[str, Any], said: str) -> None:
    options = {"weights": str(tiny_llama), "dtype": "float32", "device": "cpu", "threads": None, "settings": settings}
    with pytest.raises(UserError, match=said):
        TorchAoBackend().load(options)


@pytest.mark.engines
def test_unquantized_it_is_the_reference(opened: Opened, expected: Expected, agrees: Callable[..., None]) -> None:
    with opened("torchao") as worker:
        assert worker.description["engine"] == "torchao"
        agrees(worker, expected(None), 1e-6)


@pytest.mark.engines
@pytest.mark.parametrize(
    ("settings", "dtype", "kernel", "max_kl"),
    [
        ({"group_size": 64}, "float32", "Linear x1, Linear[Int4OpaqueTensor] x14", 0.8),
        ({"group_size": 64}, "bfloat16", "Linear x1, Linear[Int4OpaqueTensor] x14", 0.8),
        ({"config": "int8"}, "float32", "Linear x1, Linear[Int8Tensor] x14", 0.1),
    ],
)
def test_quantized_once_loaded(
    opened: Opened, expected: Expected, agrees: Callable[..., None], small_llama: Path,
    settings: dict[str, Any], dtype: str, kernel: str, max_kl: float,
) -> None:  # fmt: skip
    with opened("torchao", small_llama, settings=settings, dtype=dtype) as worker:
        assert worker.description["kernel"] == kernel
        dense = sum(f.stat().st_size for f in small_llama.glob("*.safetensors"))
        assert worker.description["weight_bytes"] < dense / 2
        agrees(worker, expected(None), max_kl)
