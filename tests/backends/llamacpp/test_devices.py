"""Whose power and throttling are those of a llama.cpp cell."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from awqbench.backends.llamacpp.devices import cuda_uuids, on_gpus

UUIDS = [uuid.UUID(int=7 + place) for place in range(3)]


def driver(told: int = 0) -> Any:
    """libcuda on a machine with three GPUs."""

    def name(buffer: Any, number: int) -> int:
        buffer.raw = UUIDS[number].bytes
        return told

    return SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGetUuid_v2=name)


@pytest.mark.parametrize(
    ("buffers", "gpus", "seen"),
    [
        (["CPU_Mapped", "CUDA1"], ["CUDA1"], [1]),
        (["CUDA_Host", "CUDA0", "CUDA2"], ["CUDA0", "CUDA2"], [0, 2]),
        (["CUDA0_Split", "CUDA0", "CPU"], ["CUDA0_Split", "CUDA0"], [0]),
        (["CPU_Mapped", "CPU_REPACK"], [], None),
        (["Vulkan0", "Vulkan_Host"], ["Vulkan0"], None),
        (["CUDA0", "RPC[10.0.0.1:50052]"], ["CUDA0", "RPC[10.0.0.1:50052]"], None),
    ],
)
def test_the_gpus_behind_buffers(buffers: list[str], gpus: list[str], seen: list[int] | None) -> None:
    assert on_gpus(buffers) == gpus
    assert cuda_uuids(gpus, driver()) == (seen and [f"GPU-{UUIDS[number]}" for number in seen])


def test_a_driver_that_does_not_tell() -> None:
    assert cuda_uuids(["CUDA0"], driver(told=3)) is None
    assert cuda_uuids(["CUDA0"], SimpleNamespace(cuInit=lambda flags: 0)) is None
