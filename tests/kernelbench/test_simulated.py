"""The checks on the kernels' own source, run on the CPU by kernels/host/simt.h: packing, binding, kernels, protocol.

A GPU runs the same calls with the same arguments; what only it can show is time, and how launches overlap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from awqbench.kernelbench.checks import Case
from awqbench.kernelbench.ours import Operator, Prefill
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.runner import carry_out
from awqbench.ops import cuda_binding, cuda_build, cuda_interface, cuda_prefill
from awqbench.ops.cuda_binding import MAX_ROWS

CASES = (
    Case("accuracy", Shape(72, 352, 32), (1, 9, 64), bias=True),
    Case("accuracy", Shape(64, 96, 96), (1, 17), "bf16"),
    Case("accuracy", Shape(200, 256, 128), (33,), "bf16", bias=True),
    Case("exact", Shape(72, 128, 64), (8, 16)),
    Case("one-hot", Shape(72, 96, 32), (16,)),
    Case("repeat", Shape(72, 96, 32), (3,)),
    Case("chain", Shape(96, 96, 32), (3,)),
    Case("strides", Shape(72, 96, 96), (3,)),
)
MANY_ROWS = (
    Case("accuracy", Shape(72, 160, 32), (65, 129), bias=True),
    Case("exact", Shape(72, 128, 64), (65,), "bf16"),
    Case("one-hot", Shape(72, 96, 96), (96,)),
    Case("repeat", Shape(72, 96, 32), (65,)),
    Case("strides", Shape(72, 96, 96), (65,)),
)


class Simulated(Operator):
    """One variant."""

    def __init__(self, variant: int) -> None:
        super().__init__(torch.device("cpu"))
        self.variant, self.raw_rows = variant, MAX_ROWS

    def run(self, packed: Any, x: Tensor) -> Tensor:
        x = x if x.stride(1) == 1 else x.contiguous()
        y = x.new_empty(len(x), packed["n"])
        self.run_into(packed, x, y, torch.zeros(self.workspace_bytes(packed, len(x)), dtype=torch.uint8))
        return y


class SimulatedPrefill(Prefill):
    """One variant for many rows, which reads x in pieces of 16 bytes."""

    def run(self, packed: Any, x: Tensor) -> Tensor:
        y, x = x.new_empty(len(x), packed["n"]), cuda_binding.in_pieces(x)
        self.run_into(packed, x, y, torch.zeros(self.workspace_bytes(packed, len(x)), dtype=torch.uint8))
        return y


@pytest.fixture(scope="module")
def library(simulated_kernels: Path) -> Iterator[ctypes.CDLL]:
    loaded = ctypes.CDLL(str(simulated_kernels))
    loaded.awqbench_cuda_variants.restype = ctypes.c_char_p
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_build, "library", lambda: loaded)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=0))
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        cuda_interface.functions.cache_clear()
        yield loaded
    cuda_interface.functions.cache_clear()


def test_every_variant_passes(library: ctypes.CDLL) -> None:
    names = library.awqbench_cuda_variants().decode().split(",")
    rows = [carry_out(Simulated(number), case, torch.device("cpu")) for number in range(len(names)) for case in CASES]
    assert [row.line() for row in rows if row.status != "pass"] == []
    assert len(rows) == len(names) * len(CASES)


@pytest.mark.usefixtures("library")
def test_many_rows_pass() -> None:
    kernel = SimulatedPrefill(torch.device("cpu"), 0, cuda_prefill.variants()[0])
    rows = [carry_out(kernel, case, torch.device("cpu")) for case in MANY_ROWS]
    assert [row.line() for row in rows if row.status != "pass"] == []


def test_a_variant_that_does_not_exist_is_an_error_row(library: ctypes.CDLL) -> None:
    row = carry_out(Simulated(99), CASES[0], torch.device("cpu"))
    assert (row.status, "invalid argument (variant 99, M=1 72x352 g32)" in row.detail) == ("error", True)
