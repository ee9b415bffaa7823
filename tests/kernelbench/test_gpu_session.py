"""suites/micro/gpu_session.sh from beginning to end, with the CPU in the place of the GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def test_decoding(tmp_path: Path) -> None:
    done = session(
        tmp_path, "decode", DECODE_ARGS="--tiny --device cpu --rounds 2 --prompt 4 --new 3 --batches 1 2"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "build.log", "machine.txt", "decode.json", "decode.log",
    }  # fmt: skip
    found = json.loads((tmp_path / "out" / "decode.json").read_text())
    for batch, contestants in found["batches"].items():
        assert [entry["runtime"] for entry in contestants.values()] == [
            "static, fused", "static: not fused: not asked for", "static", "transformers: asked for",
        ]  # fmt: skip
        for entry in contestants.values():
            assert len(entry["tokens_per_s"]) == len(entry["ttft_s"]) == 2
            assert entry["mbu_nominal"] is None
        packed, _, dense, _ = (entry["bytes_per_step"] for entry in contestants.values())
        # Two layers of 64 x (64 + 32 + 32 + 64) and 3 x 64 x 128 weights, in 16 bits, or 4 and 20 for each group of 32;
        # packed rows are whole tiles of 64. Alike: head, norms, rotary angles, and keys and values of 5 tokens.
        rest = 2 * (256 * 64 + 5 * 64) + 2 * 4 * 8 + int(batch) * 5 * 2 * 2 * 2 * 16 * 2
        assert dense == 2 * 2 * 36864 + rest
        assert packed == 2 * (36864 + 2 * 32 * 64) * (0.5 + 2.5 / 32) + rest
    assert "not a measurement of anything" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_decoding_without_a_gpu(tmp_path: Path) -> None:
    done = session(tmp_path, "decode")
    assert done.returncode == 2
    assert "sees no GPU" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_step(tmp_path: Path) -> None:
    done = session(tmp_path, "speed")
    assert done.returncode == 2
    assert "unknown step 'speed' (allowed: check, bench, decode, all)" in done.stderr
