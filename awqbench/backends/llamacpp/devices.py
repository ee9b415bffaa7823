"""The GPUs that llama.cpp put weights on, by the names of its buffers. Standard library only."""

from __future__ import annotations

import ctypes
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any


def on_gpus(buffers: Iterable[str]) -> list[str]:
    """Those of a file's buffers that lie on a GPU; CUDA_Host, pinned memory, lies beside CPU_Mapped."""
    return [name for name in buffers if not name.startswith("CPU") and not name.endswith("_Host")]


def cuda_uuids(buffers: Sequence[str], driver: Any = None) -> list[str] | None:
    """NVML's names of the GPUs behind buffers on GPUs (CUDA0, CUDA1_Split), so that their telemetry alone is read.

    None where there is none, where some are no CUDA devices, or where the driver does not tell. `driver` is libcuda, or
    a stand-in with the same functions.
    """
    found = [re.match(r"CUDA(\d+)", name) for name in buffers]
    numbers = sorted({int(match[1]) for match in found if match})
    if not numbers or None in found:
        return None
    try:
        driver = driver or ctypes.CDLL("libcuda.so.1")
        raw = [ctypes.create_string_buffer(16) for _ in numbers]
        # A device's handle is its number among those that are seen, which is how ggml counts as well.
        statuses = [driver.cuInit(0), *map(driver.cuDeviceGetUuid_v2, raw, numbers)]
    except (OSError, AttributeError):
        return None
    return None if any(statuses) else [f"GPU-{uuid.UUID(bytes=one.raw)}" for one in raw]
