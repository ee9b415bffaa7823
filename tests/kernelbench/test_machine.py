"""What a session says about its machine."""

from __future__ import annotations

import pytest
import torch

from awqbench import __version__
from awqbench.kernelbench import machine
from awqbench.kernelbench.ceilings import fitting, measure_ceilings

CPU = torch.device("cpu")


def test_names_and_versions() -> None:
    assert machine.device_name(CPU) == "CPU"
    assert machine.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    found = machine.versions()
    assert found["awqbench"] == __version__
    assert found["torch"] == torch.__version__
    assert machine.cache_bytes(CPU) == 2**15


def test_a_cpu_has_no_state() -> None:
    state = machine.State(CPU)
    assert state.read() == state.describe() == {}


def test_a_gpus_state_is_read_by_name() -> None:
    class Gpus:
        def read(self) -> dict[str, float]:
            return {
                "gpu0_power_w": 300.0, "gpu0_temperature_c": 50.0, "gpu0_sm_clock_mhz": 1980.0,
                "gpu0_util_percent": 9.0, "gpu0_mem_clock_mhz": float("nan"), "gpu0_throttle_reasons": 4.0,
                "gpu1_power_w": 70.0,
            }  # fmt: skip

    state = machine.State(CPU)
    state._gpus = Gpus()  # type: ignore[assignment]
    assert state.read() == {
        "power_w": 300.0, "temperature_c": 50.0, "sm_clock_mhz": 1980.0, "throttle_reasons": ["software power cap"],
    }  # fmt: skip


@pytest.mark.parametrize("free", [0, 10**8, 6 * 2**30, 24 * 2**30])
def test_a_small_gpu_is_read_in_a_small_buffer(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    found = fitting(2**32, torch.device("cuda"))
    assert 2**24 <= found <= 2**32
    assert found % 2**24 == 0
    assert found == 2**24 or 1.5 * found < free / 2
    assert (found == 2**32) == (free == 24 * 2**30)
    assert fitting(2**20, torch.device("cuda")) == fitting(2**20, CPU) == 2**20


def test_ceilings_are_rates() -> None:
    found = measure_ceilings(CPU, size=2**20, side=32)
    assert min(found.read, found.copy, found.matmul) > 0
    assert found.nominal is None
