"""What the machine did while a cell ran: host figures always, GPU figures through NVML where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awqbench.telemetry.sampler import Sampler

__all__ = ["Sampler"]


def __getattr__(name: str) -> Any:
    # On first use: the sampler needs pandas, and the kernels' commands read the GPU's clocks without it.
    if name != "Sampler":
        raise AttributeError(f"module 'awqbench.telemetry' has no attribute {name!r}")
    from awqbench.telemetry.sampler import Sampler

    return Sampler
