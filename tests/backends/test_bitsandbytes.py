"""bitsandbytes: its options anywhere, its weights in its environment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awqbench.backends.bitsandbytes import configuration
from awqbench.errors import UserError

Opened = Callable[..., AbstractContextManager[Any]]
Expected = Callable[[Path | None], np.ndarray]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bits": 3}, r"unknown option bits 3 \(allowed: 4, 8\)"),
        ({"bits": True}, r"unknown option bits True \(allowed: 4, 8\)"),
        ({"quant_type": "nf3"}, r"did you mean 'nf4'\? \(allowed: fp4, nf4\)"),
        ({"double_quant": "yes"}, r"option double_quant is 'yes' \(allowed: true, false\)"),
        ({"bits": 8, "quant_type": "nf4"}, r"option quant_type is one of 4 bits, and bits is 8"),
    ],
)
def test_wrong_options_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        configuration({"settings": settings}, torch.float32)


def test_it_computes_in_the_type_asked_for() -> None:
    found = configuration({"settings": {"double_quant": True}}, torch.bfloat16)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
    assert found.bnb_4bit_quant_type == "nf4"
    assert found.bnb_4bit_use_double_quant


@pytest.mark.engines
def test_unquantized_it_is_the_reference(opened: Opened, expected: Expected, agrees: Callable[..., None]) -> None:
    with opened("bitsandbytes") as worker:
        assert worker.description["engine"] == "bitsandbytes"
        agrees(worker, expected(None), 1e-6)


@pytest.mark.engines
@pytest.mark.parametrize(
    ("settings", "kernel"),
    [
        ({}, "Linear x1, Linear4bit x14 (nf4)"),
        ({"quant_type": "fp4", "double_quant": True}, "Linear x1, Linear4bit x14 (fp4)"),
        ({"bits": 8}, "Linear x1, Linear8bitLt x14"),
    ],
)
def test_quantized_while_loading(
    opened: Opened,
    expected: Expected,
    agrees: Callable[..., None],
    small_llama: Path,
    settings: dict[str, Any],
    kernel: str,
) -> None:
    with opened("bitsandbytes", small_llama, settings=settings) as worker:
        assert worker.description["kernel"] == kernel
        agrees(worker, expected(None), 0.8)  # random weights with outliers: 4 bits cost them a lot
