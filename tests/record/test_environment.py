"""What a manifest says of the machine."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from awqbench.cores import usable_cores
from awqbench.record import environment
from awqbench.record.environment import hardware, packages, processors


def test_hardware_is_plain_json_and_true_of_this_machine() -> None:
    found = hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["memory_bytes"] > 0
    assert found["cores_usable"] == usable_cores()
    assert 0 < found["cores_usable"] <= found["cores_logical"]
    assert bool(found["gpus"]) != bool(found["gpu_note"])


def test_cpuinfo_of_another_machine(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 amx_tile sse\n\nprocessor\t: 1\n"
    )
    found = hardware(cpuinfo)
    assert found["cpu"] == "Some CPU @ 2 GHz"
    assert found["cpu_flags"] == ["avx2", "amx_tile"]
    assert hardware(tmp_path / "absent")["cpu_flags"] == []


@pytest.mark.parametrize(
    ("names", "prefix", "counts"),
    [(["A", "A"], "", False), (["A", "B"], "", True), ([], "", False), (["A"], "MIG-", True)],
)
def test_which_gpu_is_seen_counts_where_they_are_unlike(
    names: list[str], prefix: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"cpu": "c", "cpu_flags": ["avx2"], "gpus": [{"name": name} for name in names]}
    monkeypatch.setattr(environment, "hardware", lambda: found)
    seen = []
    for number in ("0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{prefix}{number}")
        seen.append(processors())
    assert (seen[0] != seen[1]) == counts
    found["cpu_flags"] = ["avx2", "avx512f"]
    assert processors() != seen[1]


def test_versions_are_the_installed_ones() -> None:
    found = packages()
    assert found["numpy"] == metadata.version("numpy")
    assert found["torch"] == metadata.version("torch")
    assert found["python"].count(".") == 2
