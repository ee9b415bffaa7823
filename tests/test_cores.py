"""How many cores a process may use, in containers of both kinds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from awqbench.cores import usable_cores, use_threads

THERE = 8
V2 = "0::/machine/pod\n"
V1 = "9:name=systemd:/docker/1f\n3:cpuset:/docker/1f\n2:cpu,cpuacct:/docker/1f\n0::/docker/1f\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2, {"machine/pod/cpu.max": "200000 100000"}, 2),
        (V2, {"machine/pod/cpu.max": "max 100000"}, THERE),
        (V2, {"machine/pod/cpu.max": "max 100000", "machine/cpu.max": "350000 100000"}, 4),
        (V2, {"machine/pod/cpu.max": "9000000 100000"}, THERE),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {}, THERE),
        (V1, {"cpu/docker/1f/cpu.cfs_quota_us": "300000\n", "cpu/docker/1f/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/docker/1f/cpu.cfs_quota_us": "-1\n", "cpu/docker/1f/cpu.cfs_period_us": "100000\n"}, THERE),
        # Docker shows a container its own group at the top, and the path that it has outside.
        (V1, {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpuset/docker/1f/cpu.cfs_quota_us": "1\n", "cpuset/docker/1f/cpu.cfs_period_us": "1\n"}, THERE),
        (None, {"cpu.max": "100000 100000"}, THERE),
    ],
)
def test_a_quota_of_time_is_a_limit_of_cores(
    own: str | None, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(THERE)), raising=False)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert usable_cores(tmp_path / "groups", tmp_path / "own") == cores


@pytest.mark.parametrize(
    ("asked", "own", "cores", "said", "used"),
    [(None, 8, 2, None, 2), (None, 8, 2, "8", 8), (None, 4, 8, None, 4), (6, 8, 2, None, 6)],
)
def test_no_more_threads_than_the_quota_has_cores_for(
    asked: int | None, own: int, cores: int, said: str | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = [own]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: number.__setitem__(0, count))
    monkeypatch.setattr("awqbench.cores.usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    use_threads(asked)
    assert number == [used]
