"""The thread beside a cell: what it keeps, what it sums up, what it costs."""

import os
import time
from typing import Any

import pandas as pd
import pytest

from awqbench.telemetry import Sampler, gpu, host


def test_rows_come_at_the_interval_and_once_at_the_end() -> None:
    with Sampler(os.getpid(), 0.15) as sampler:
        time.sleep(0.5)
    frame = sampler.frame()
    assert 3 <= len(frame) <= 5
    assert frame["time_s"].is_monotonic_increasing
    assert frame["time_s"].iloc[-1] >= 0.5
    assert list(frame.columns[: 1 + len(host.FIELDS)]) == ["time_s", *host.FIELDS]
    assert sampler.summary().samples == len(frame)
    assert sampler.summary().duration_s == frame["time_s"].iloc[-1]


def test_a_cell_shorter_than_the_interval_has_a_sample() -> None:
    with Sampler(os.getpid(), 60.0) as sampler:
        pass
    assert len(sampler.frame()) == 1
    assert sampler.summary().interval_s == 60.0


def test_without_a_gpu_there_are_no_gpu_columns_and_the_reason_is_told(fake_nvml: Any) -> None:
    with Sampler(os.getpid(), 0.1, nvml=fake_nvml(start="Driver Not Loaded")) as sampler:
        pass
    summary = sampler.summary()
    assert list(sampler.frame().columns) == ["time_s", *host.FIELDS]
    assert summary.gpus == []
    assert summary.gpu_note == "no GPU: Driver Not Loaded"
    assert summary.throttled is None
    assert summary.energy_joules is None


def test_energy_counts_from_the_start_over_all_gpus(fake_nvml: Any) -> None:
    nvml = fake_nvml(count=2)
    with Sampler(os.getpid(), 0.05, nvml=nvml) as sampler:
        time.sleep(0.12)
    frame, summary = sampler.frame(), sampler.summary()
    # 100 J a reading, the first of which is the zero point.
    assert frame["gpu1_energy_j"].tolist() == [100.0 * (i + 1) for i in range(len(frame))]
    assert summary.energy_joules == 2 * 100.0 * len(frame)
    assert summary.gpus == ["Fake 0", "Fake 1"]
    assert nvml.open == 0
    assert set(frame.columns) == {"time_s", *host.FIELDS, *(f"gpu{i}_{f}" for i in range(2) for f in gpu.FIELDS)}


def test_the_energy_of_one_gpu_is_not_that_of_two(fake_nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml(count=2)
    counted = nvml.nvmlDeviceGetTotalEnergyConsumption

    def of_the_first_alone(handle: Any) -> int:
        if handle.index:
            raise nvml.NVMLError("Not Supported")
        return int(counted(handle))

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", of_the_first_alone)
    with Sampler(os.getpid(), 60.0, nvml=nvml) as sampler:
        pass
    assert sampler.frame()["gpu0_energy_j"].tolist() == [100.0]
    assert sampler.summary().energy_joules is None


@pytest.mark.parametrize(
    ("masks", "throttled", "note"),
    [
        ((0, 0x1), False, None),
        ((0, 0x8, 0), True, None),
        ((0, 0x4), False, "software power cap"),
        ((0, 0x24), True, "cap"),
    ],
)
def test_throttling_is_flagged_and_a_power_cap_only_noted(
    fake_nvml: Any, masks: Any, throttled: bool, note: str | None
) -> None:
    with Sampler(os.getpid(), 0.03, nvml=fake_nvml(masks=masks)) as sampler:
        time.sleep(0.12)
    summary = sampler.summary()
    assert summary.throttled is throttled
    assert (note in (summary.gpu_note or "")) if note else summary.gpu_note is None
    assert sampler.frame()["gpu0_throttle_reasons"].dtype == pd.Int64Dtype()


def test_a_gpu_without_counters_is_unmeasured_not_zero(fake_nvml: Any) -> None:
    nvml = fake_nvml()
    nvml.unsupported = {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons"}
    with Sampler(os.getpid(), 0.1, nvml=nvml) as sampler:
        pass
    assert sampler.summary().energy_joules is None
    assert sampler.summary().throttled is None
    assert sampler.frame()["gpu0_throttle_reasons"].isna().all()


def test_its_own_cost_is_recorded() -> None:
    # The bound itself is a measurement (CONTRIBUTING.md says where it is recorded): a test must not depend on load.
    with Sampler(os.getpid(), 0.05) as sampler:
        time.sleep(0.2)
    summary = sampler.summary()
    assert summary.sampler_cpu_s > 0
    assert summary.sampler_cpu_share == pytest.approx(summary.sampler_cpu_s / summary.duration_s)


def test_an_error_in_the_block_still_stops_the_thread(fake_nvml: Any) -> None:
    nvml = fake_nvml()
    with pytest.raises(KeyError), Sampler(os.getpid(), 60.0, nvml=nvml) as sampler:
        raise KeyError
    assert nvml.open == 0
    assert len(sampler.frame()) == 1
