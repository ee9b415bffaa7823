"""What a backend takes up: load time, bytes of its weights in memory and on disk, and its memory peaks."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awqbench.fingerprint import gguf_parts
from awqbench.record.schema import Metric
from awqbench.suites.base import Context

# What transformers loads first: Mistral's folders hold the same weights again, as consolidated.safetensors.
WEIGHT_FILES = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.gguf")


def footprint_metrics(context: Context, memory: Mapping[str, int], asked: str, dtype: str) -> list[Metric]:
    """Single figures of one worker; those its engine does not tell are left out.

    Ids end with the compute type that was asked for; `dtype` is the one that the engine has.
    """
    told = context.worker.description
    figures: list[tuple[str, float | None, str, str]] = [
        ("latency/load", told.get("load_s"), "s", "seconds to load the weights, as the worker timed it, once"),
        (
            "memory/weights",
            told.get("weight_bytes"),
            "bytes",
            "bytes the loaded weights occupy, as they are held",
        ),
        ("memory/host-peak", memory.get("host_peak"), "bytes", "largest resident set of the worker, loading included"),
        ("memory/device-peak", memory.get("device_allocated_peak"), "bytes", "largest allocation on the device"),
    ]
    metrics = [
        _metric(f"{name}/{asked}", float(value), unit, f"{how}; {dtype}", {"dtype": dtype})
        for name, value, unit, how in figures
        if value is not None
    ]
    files = weight_files(context.weights) if context.weights else []
    if files:
        detail = {"files": len(files), "bytes_by_dtype": bytes_by_dtype(files)}
        size = sum(file.stat().st_size for file in files)
        metrics.append(_metric("size/checkpoint", float(size), "bytes", "bytes of the weight files on disk", detail))
    return metrics


def weight_files(weights: Path) -> list[Path]:
    """The files that hold a model's weights: of several formats side by side, the first of `WEIGHT_FILES`."""
    if weights.is_file():
        return gguf_parts(weights)
    folder = weights
    return next((found for pattern in WEIGHT_FILES if (found := sorted(folder.glob(pattern)))), [])


def bytes_by_dtype(files: list[Path]) -> dict[str, int]:
    """Stored bytes by safetensors dtype: a reference saved in float32 makes any 4-bit file look eight times smaller."""
    sizes: Counter[str] = Counter()
    for file in files:
        if file.suffix != ".safetensors":
            continue
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                sizes[tensor["dtype"]] += end - start
    return dict(sorted(sizes.items()))


def _metric(name: str, value: float, unit: str, protocol: str, detail: dict[str, Any]) -> Metric:
    return Metric(
        id=name, value=value, unit=unit, n=1, protocol=protocol, higher_is_better=False, pairing="none", detail=detail
    )
