"""Units, missing figures and absent GPUs, through a stand-in for NVML."""

import math
from typing import Any

import pytest

from awqbench.telemetry import gpu
from awqbench.telemetry.gpu import NvmlGpus


def test_units_and_column_names(fake_nvml: Any) -> None:
    row = NvmlGpus(fake_nvml(count=2)).read()
    assert list(row) == [f"gpu{i}_{field}" for i in range(2) for field in gpu.FIELDS]
    assert row["gpu1_power_w"] == 250.0
    assert row["gpu1_energy_j"] == 5100.0
    assert row["gpu0_memory_used_bytes"] == 3 * 2**30
    assert (row["gpu0_sm_clock_mhz"], row["gpu0_mem_clock_mhz"]) == (1755, 2619)
    assert (row["gpu0_util_percent"], row["gpu0_temperature_c"]) == (42, 61)


@pytest.mark.parametrize(
    ("uuid", "seen"),
    [(None, [0, 1, 2]), ("GPU-1", [1]), (["GPU-0", "GPU-2"], [0, 2]), ("GPU-7-2", [1]), ("GPU-9", []), ([], [0, 1, 2])],
)
def test_the_devices_a_cell_runs_on_are_read_and_no_others(fake_nvml: Any, uuid: Any, seen: list[int]) -> None:
    """All of several that share a layer: the energy of one would be taken for that of all. CUDA gives a part of a
    device (7-2, of device 1) a name of its own."""
    gpus = NvmlGpus(fake_nvml(count=3), uuid)
    assert gpus.names == [f"Fake {index}" for index in seen]
    assert gpus.note == (None if seen else "no GPU: NVML does not know GPU-9 among 3 devices")
    assert NvmlGpus(fake_nvml(count=1), "GPU-9").names == ["Fake 0"]  # there is no other


def test_a_figure_a_device_does_not_offer_is_nan_and_the_rest_stays(fake_nvml: Any) -> None:
    nvml = fake_nvml()
    nvml.unsupported = {"nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTotalEnergyConsumption"}
    row = NvmlGpus(nvml).read()
    assert math.isnan(row["gpu0_util_percent"])
    assert math.isnan(row["gpu0_energy_j"])
    assert row["gpu0_power_w"] == 250.0


def test_description_has_the_peak_bandwidth_of_the_data_sheet(fake_nvml: Any) -> None:
    # 5120 bits at 2619 MHz, two transfers a clock: the 3.35 TB/s of an H100 SXM.
    (device,) = NvmlGpus(fake_nvml()).describe()
    assert device["memory_bandwidth"] == pytest.approx(3.352e12, rel=1e-3)
    assert device["driver"] == "570.00"
    assert device["compute_capability"] == "9.0"
    assert device["power_limit_w"] == 700.0


def test_a_part_of_a_device_has_not_the_bandwidth_of_the_whole(fake_nvml: Any) -> None:
    nvml = fake_nvml()
    nvml.mig = True
    (device,) = NvmlGpus(nvml).describe()
    assert device["memory_bandwidth"] is None
    nvml.unsupported = {"nvmlDeviceGetMigMode"}  # boards without parts
    (device,) = NvmlGpus(nvml).describe()
    assert device["memory_bandwidth"] is not None


@pytest.mark.parametrize(
    ("arguments", "said"), [({"start": "NVML Shared Library Not Found"}, "Library"), ({"count": 0}, "no device")]
)
def test_no_gpu_is_a_note_and_empty_readings(fake_nvml: Any, arguments: dict[str, Any], said: str) -> None:
    gpus = NvmlGpus(fake_nvml(**arguments))
    assert gpus.note is not None
    assert gpus.note.startswith("no GPU: ")
    assert said in gpus.note
    assert gpus.names == []
    assert gpus.read() == {}
    assert gpus.describe() == []
    gpus.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nvml_is_given_back_once(fake_nvml: Any, count: int) -> None:
    nvml = fake_nvml(count=count)
    gpus = NvmlGpus(nvml)
    gpus.close()
    gpus.close()
    assert nvml.open == 0


def test_the_real_library_answers_without_an_error_wherever_this_runs() -> None:
    gpus = NvmlGpus()
    assert bool(gpus.names) != bool(gpus.note)
    gpus.close()
