"""suites/micro/gpu_session.sh from beginning to end, with the CPU in the place of the GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "suites" / "micro" / "gpu_session.sh"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or not SCRIPT.is_file() or not (ROOT / "awqbench").is_dir(),
    reason="needs bash and a checkout",
)


def session(tmp_path: Path, step: str, **environment: str) -> subprocess.CompletedProcess[str]:
    peers = tmp_path / "peers"
    peers.mkdir()
    (peers / "awqbench_cuda.so").touch()  # instead of a build; a CPU loads no kernels
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWQBENCH")}
    return subprocess.run(
        ["bash", str(SCRIPT), step],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
        env={
            **inherited, "OUT": str(tmp_path / "out"), "PEERS": str(peers), "PYTHON": sys.executable, "BUDGET": "150",
            "OMP_NUM_THREADS": "1", "AWQBENCH_CACHE": str(tmp_path / "cache"), **environment,
        },
    )  # fmt: skip


def test_a_whole_session(tmp_path: Path) -> None:
    done = session(
        tmp_path, "all",
        CHECK_ARGS="--device cpu --quick --only round-trip",
        BENCH_ARGS="--device cpu --shapes 64x64 --group-size 32 --batches 1 --dtypes fp16 --modes back-to-back",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "build.log", "machine.txt", "check.json", "check.log", "results.json", "bench.log", "table.md",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "check.json").read_text())["summary"]["pass"] == 4
    assert "not a measurement of any kernel" in (tmp_path / "out" / "table.md").read_text()
    assert done.stdout.rstrip().splitlines()[-1].startswith("== done, status 0")


def test_an_unknown_step(tmp_path: Path) -> None:
    done = session(tmp_path, "speed")
    assert done.returncode == 2
    assert "unknown step 'speed' (allowed: check, bench, all)" in done.stderr
