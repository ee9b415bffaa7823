"""What the memory and the matrix units of this device do at best, measured before anything is judged by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Ceilings:
    """Bytes per second reading only and copying (read plus written), operations per second of a bfloat16 product of
    8192 x 8192 x 8192, and the bandwidth by memory clock and bus width, where the device tells them."""

    read: float
    copy: float
    matmul: float
    nominal: float | None


def measure_ceilings(device: torch.device, size: int = 2**32, side: int = 8192) -> Ceilings:
    """Takes about a second on a GPU. `size`: bytes of the buffer that is read, at the most."""
    source = torch.empty(fitting(size, device) // 4, dtype=torch.float32, device=device).normal_()
    target = torch.empty_like(source[: source.numel() // 2])
    half = source[: target.numel()]
    # A sum over rows of 16 MB or more and over everything: whichever reads faster.
    rows = source.view(max(1, source.nbytes // 2**24), -1)
    read = min(_seconds(lambda: source.sum(), device), _seconds(lambda: rows.sum(1), device))
    copy = _seconds(lambda: target.copy_(half), device)
    factor = torch.randn(side, side, device=device).to(torch.bfloat16)
    product = _seconds(lambda: factor @ factor, device)
    return Ceilings(
        read=source.numel() * 4 / read,
        copy=2 * target.numel() * 4 / copy,
        matmul=2.0 * side**3 / product,
        nominal=nominal_bandwidth(device),
    )


def fitting(size: int, device: torch.device) -> int:
    """`size`, or what leaves room on a small GPU for the copy of a half of it: whole rows of 16 MB."""
    if device.type != "cuda":
        return size
    free, _ = torch.cuda.mem_get_info(device)
    return min(size, max(1, free // 2**26) * 2**24)


def nominal_bandwidth(device: torch.device) -> float | None:
    """Two transfers per memory clock over the whole bus, in bytes per second."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    clock, width = getattr(properties, "memory_clock_rate", 0), getattr(properties, "memory_bus_width", 0)
    return 2e3 * clock * width / 8 if clock and width else None


def _seconds(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The median duration of a call."""
    times: list[float] = []
    for _ in range(3):
        call()
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")  # type: ignore[no-untyped-call]
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return median(times)
