"""What is asked of the model inside vLLM's workers. Functions here run there: a module goes in, numbers come out."""

from __future__ import annotations

from collections import Counter
from typing import Any


def inspect(model: Any) -> dict[str, Any]:
    """`kernel`: what multiplies, counted; `weight_bytes` of this worker's share, None where a kernel hides its copy."""
    counts: Counter[str] = Counter()
    hidden = False
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is None or any(word in type(method).__name__ for word in ("Embedding", "KVCache")):
            continue
        counts[_multiplies(module, method)] += 1
        weight = getattr(module, "weight", None)
        hidden = hidden or (weight is not None and weight.numel() == 0)
    storages = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return {
        "kernel": ", ".join(f"{name} x{count}" for name, count in sorted(counts.items())) or "no linears",
        "weight_bytes": None if hidden else sum(storages.values()),
    }


def _multiplies(module: Any, method: Any) -> str:
    """The kernel object that vLLM chose for a linear, else the function it calls on a CPU, else its linear method."""
    for holder in (method, getattr(module, "scheme", None)):
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            if type(value).__name__.endswith("Kernel"):
                return type(value).__name__
    called = getattr(getattr(module, "cpu_linear", None), "__code__", None)
    if called is not None and called.co_names:
        return f"{type(method).__name__}[{called.co_names[-1]}]"
    return type(method).__name__


def device_peaks(model: Any) -> dict[str, int]:
    """Largest allocations of this worker's GPU so far, bytes."""
    import torch

    device = next(model.parameters()).device
    return {
        "device_allocated_peak": torch.cuda.max_memory_allocated(device),
        "device_reserved_peak": torch.cuda.max_memory_reserved(device),
    }


def device_uuids(count: int) -> list[str]:
    """NVML's names of the GPUs in use, the first ones that are seen."""
    import torch

    return [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(count)]
