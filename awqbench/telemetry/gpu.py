"""GPU figures through NVML (nvidia-ml-py). Everything here reads; nothing changes a device's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from math import nan
from typing import Any

FIELDS = (
    "power_w",
    "energy_j",
    "util_percent",
    "memory_used_bytes",
    "temperature_c",
    "sm_clock_mhz",
    "mem_clock_mhz",
    "throttle_reasons",
)


class NvmlGpus:
    """All NVIDIA devices that NVML shows.

    `nvml` is the `pynvml` module of nvidia-ml-py, or a stand-in with the same functions. Where NVML can't be started
    there are no devices and `note` says why. A figure a device does not offer (MIG, older boards) reads as NaN. With
    `uuid`, one or several as CUDA names them, those devices alone: of a part (MIG) the device that it is a part of.
    """

    def __init__(self, nvml: Any = None, uuid: str | Sequence[str] | None = None) -> None:
        self.note: str | None = None
        self._handles: list[Any] = []
        self._nvml = nvml
        self._open = False
        try:
            if nvml is None:
                self._nvml = import_module("pynvml")
            self._nvml.nvmlInit()
        except ImportError:
            self.note = "no GPU: the package nvidia-ml-py is not installed"
            return
        except self._nvml.NVMLError as error:
            self.note = f"no GPU: {error}"
            return
        self._open = True
        count = self._try(self._nvml.nvmlDeviceGetCount) or 0
        self._handles = [h for i in range(count) if (h := self._try(self._nvml.nvmlDeviceGetHandleByIndex, i))]
        # Another tenant's device must not be taken for ours: its heat would make our timings invalid, its energy ours.
        if uuid and len(self._handles) > 1:
            wanted = {uuid} if isinstance(uuid, str) else set(uuid)
            own = [h for h in self._handles if self._try(self._nvml.nvmlDeviceGetUUID, h) in wanted]
            self._handles = own or [whole for each in sorted(wanted) if (whole := self._whole(each))]
            if not self._handles:
                self.note = f"no GPU: NVML does not know {', '.join(sorted(wanted))} among {count} devices"
        if not self._handles:
            self.note = self.note or "no GPU: NVML finds no device"
            self.close()

    @property
    def names(self) -> list[str]:
        """Device names, in NVML's order."""
        return [str(self._try(self._nvml.nvmlDeviceGetName, handle) or "unknown GPU") for handle in self._handles]

    def read(self) -> dict[str, float]:
        """One reading of every device: gpu{i}_<field> for each of `FIELDS`; energy_j is the device's running total and
        throttle_reasons a bit mask (telemetry/throttle.py)."""
        return {
            f"gpu{i}_{name}": value
            for i, handle in enumerate(self._handles)
            for name, value in zip(FIELDS, self._read_one(handle), strict=True)
        }

    def describe(self) -> list[dict[str, Any]]:
        """What a record should say of each device: name, memory_bytes, driver, compute_capability, power_limit_w,
        memory_bandwidth (bytes/s: two transfers per memory clock over the whole bus; None where not offered, and for a
        device in parts, MIG, of which a process has one)."""
        n = self._nvml
        driver = self._try(n.nvmlSystemGetDriverVersion) if self._handles else None
        devices = []
        for name, handle in zip(self.names, self._handles, strict=True):
            memory = self._try(n.nvmlDeviceGetMemoryInfo, handle)
            capability = self._try(n.nvmlDeviceGetCudaComputeCapability, handle)
            limit = self._try(n.nvmlDeviceGetEnforcedPowerLimit, handle)
            clock = self._try(n.nvmlDeviceGetMaxClockInfo, handle, n.NVML_CLOCK_MEM)
            width = self._try(n.nvmlDeviceGetMemoryBusWidth, handle)
            parts, _ = self._try(n.nvmlDeviceGetMigMode, handle) or (0, 0)  # now, and after a reset
            devices.append(
                {
                    "name": name,
                    "driver": driver,
                    "memory_bytes": memory.total if memory else None,
                    "compute_capability": ".".join(map(str, capability)) if capability else None,
                    "power_limit_w": limit / 1000 if limit else None,
                    "memory_bandwidth": 2e6 * clock * width / 8 if clock and width and not parts else None,
                }
            )
        return devices

    def close(self) -> None:
        """Give NVML back; safe to call twice."""
        if self._open:
            self._try(self._nvml.nvmlShutdown)
        self._open, self._handles = False, []

    def _read_one(self, handle: Any) -> tuple[float, ...]:
        n = self._nvml
        utilization = self._try(n.nvmlDeviceGetUtilizationRates, handle)
        memory = self._try(n.nvmlDeviceGetMemoryInfo, handle)
        return (
            self._number(n.nvmlDeviceGetPowerUsage, handle) / 1000,
            self._number(n.nvmlDeviceGetTotalEnergyConsumption, handle) / 1000,
            float(utilization.gpu) if utilization else nan,
            float(memory.used) if memory else nan,
            self._number(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU),
            self._number(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM),
            self._number(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_MEM),
            self._number(n.nvmlDeviceGetCurrentClocksEventReasons, handle),
        )

    def _whole(self, uuid: str) -> Any:
        """The device of a part, which CUDA names without the prefix that NVML wants; None for what is no part."""
        part = self._try(self._nvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid.partition('-')[2]}")
        return part and self._try(self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part)

    def _number(self, call: Callable[..., Any], *args: Any) -> float:
        value = self._try(call, *args)
        return nan if value is None else float(value)

    def _try(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except self._nvml.NVMLError:
            return None
