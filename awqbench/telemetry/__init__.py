"""What the machine did while a cell ran: host figures always, GPU figures through NVML where there is one."""

from __future__ import annotations

from awqbench.telemetry.sampler import Sampler

__all__ = ["Sampler"]
