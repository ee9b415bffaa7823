"""The sampler that runs beside a cell: one thread, one row per interval."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pandas as pd

from awqbench.record.schema import TelemetrySummary
from awqbench.telemetry import gpu, host, throttle


class Sampler:
    """Samples a process tree and the GPUs while its `with` block runs.

    Args:
        pid: root of the process tree that the host figures describe.
        interval_s: seconds between two samples.
        nvml: the pynvml module, or a stand-in with its functions.
        uuid: the device or devices the cell runs on, as NVML names them; by default all devices are sampled.

    A sample is also taken at the very end, so that a cell shorter than the interval has one.
    """

    def __init__(
        self, pid: int, interval_s: float = 0.5, *, nvml: Any = None, uuid: str | Sequence[str] | None = None
    ) -> None:
        self._interval = interval_s
        self._host = host.HostProbe(pid)
        self._gpus = gpu.NvmlGpus(nvml, uuid)
        self._gpu_names = self._gpus.names
        self._rows: list[dict[str, float]] = []
        self._first: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awqbench-telemetry", daemon=True)
        self._cpu_s = 0.0
        self._duration_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._gpus.close()

    def frame(self) -> pd.DataFrame:
        """One row per sample: time_s since the start, the host fields (telemetry/host.py) and, for each GPU i, gpu{i}_
        and its fields (telemetry/gpu.py), of which energy_j counts from the start here."""
        indices = range(len(self._gpu_names))
        columns = ["time_s", *host.FIELDS, *(f"gpu{i}_{field}" for i in indices for field in gpu.FIELDS)]
        frame = pd.DataFrame(list(self._rows), columns=columns, dtype="float64")
        for i in indices:
            frame[f"gpu{i}_energy_j"] -= self._first.get(f"gpu{i}_energy_j", float("nan"))
            frame[f"gpu{i}_throttle_reasons"] = frame[f"gpu{i}_throttle_reasons"].astype("Int64")
        return frame

    def summary(self) -> TelemetrySummary:
        """What was seen, and the CPU time of the sampling thread itself (opening NVML, once, is not in it)."""
        frame = self.frame()
        energy = [frame[f"gpu{i}_energy_j"].dropna() for i in range(len(self._gpu_names))]
        measured = [float(joules.iloc[-1]) for joules in energy if len(joules)]
        masks = [int(mask) for i in range(len(self._gpu_names)) for mask in frame[f"gpu{i}_throttle_reasons"].dropna()]
        capped = sum(bool(mask & throttle.POWER_CAP) for mask in masks)
        return TelemetrySummary(
            samples=len(frame),
            interval_s=self._interval,
            duration_s=self._duration_s,
            sampler_cpu_s=self._cpu_s,
            sampler_cpu_share=self._cpu_s / self._duration_s if self._duration_s else 0.0,
            gpus=self._gpu_names,
            gpu_note=self._gpus.note
            or (f"software power cap in {capped} of {len(masks)} readings" if capped else None),
            throttled=any(map(throttle.throttled, masks)) if masks else None,
            energy_joules=sum(measured) if measured and len(measured) == len(energy) else None,
        )

    def _run(self) -> None:
        cpu_start, start = time.thread_time(), time.monotonic()
        self._first = self._read()
        ticks, last = 1, False
        while not last:
            last = self._stop.wait(max(0.0, start + ticks * self._interval - time.monotonic()))
            now = time.monotonic() - start
            self._rows.append({"time_s": now, **self._read()})
            ticks = int(now / self._interval) + 1
            self._cpu_s, self._duration_s = time.thread_time() - cpu_start, now

    def _read(self) -> dict[str, float]:
        return {**self._host.read(), **self._gpus.read()}
