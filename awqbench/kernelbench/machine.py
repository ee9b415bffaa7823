"""What a session of measurements ran on: the device, the versions of everything, and the device's state."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from typing import Any

import torch

from awqbench import __version__
from awqbench.telemetry.gpu import NvmlGpus
from awqbench.telemetry.throttle import names

PACKAGES = ("torch", "triton", "numpy", "nvidia-cublas", "vllm", "humming-kernels", "gemlite", "nvidia-ml-py")


def device_name(device: torch.device) -> str:
    """As the driver calls it; `CPU` for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def slug(name: str) -> str:
    """A device's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cache_bytes(device: torch.device) -> int:
    """The size of the last cache before memory. On a CPU a token: nothing timed there is a measurement."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 2**15


def versions() -> dict[str, str]:
    """Of the packages that are installed, of CUDA, Python and awqbench."""
    found = {"awqbench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # with its build, which the package's metadata may lack
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class State:
    """The device's clocks, power and temperature, read and never set."""

    def __init__(self, device: torch.device) -> None:
        self._gpus = NvmlGpus(uuid=_uuid(device)) if device.type == "cuda" else None

    def describe(self) -> dict[str, Any]:
        """Driver, memory and power limit, where NVML tells them."""
        described = self._gpus.describe() if self._gpus else []
        return described[0] if described else {}

    def read(self) -> dict[str, Any]:
        """Power in watts, temperature in degrees Celsius, clocks in MHz, reasons for lower clocks by name."""
        if self._gpus is None:
            return {}
        reading = {key.removeprefix("gpu0_"): value for key, value in self._gpus.read().items() if "gpu0_" in key}
        kept = ("power_w", "temperature_c", "sm_clock_mhz", "mem_clock_mhz")
        state: dict[str, Any] = {key: reading[key] for key in kept if key in reading and not isnan(reading[key])}
        mask = reading.get("throttle_reasons")
        if mask is not None and not isnan(mask):
            state["throttle_reasons"] = names(int(mask))
        return state


def _uuid(device: torch.device) -> str | None:
    found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{found}" if found else None
