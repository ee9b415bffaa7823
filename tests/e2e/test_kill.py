"""SIGKILL in the middle of one job after another, then the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(spec: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "awqbench", "run", str(spec), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def like_a_terminal() -> None:
    """Background jobs and some CI runners have their children ignore or block SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def kill_within(process: subprocess.Popen[bytes], job: Path) -> None:
    """Kill the run as soon as it works on a job (its unfinished folder is there)."""
    deadline = time.monotonic() + 240
    while not job.exists():
        assert process.poll() is None, f"the run ended before it came to {job.name}"
        assert time.monotonic() < deadline, f"the run never came to {job.name}"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def timeless(path: Path) -> dict[str, object]:
    """A comparison without what a clock or a memory meter measured."""
    data = json.loads(path.read_text())
    data["differences"] = [row for row in data["differences"] if row["suite"] != "latency"]
    # The adjustment for many tests is over the whole table, timings included.
    for row in data["differences"]:
        row.pop("p_adjusted")
    data["notes"] = [note for note in data["notes"] if "latency" not in note]
    return data


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    finished: Path, spec_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    kept: dict[Path, int] = {}
    # While one quantizes, has just started, has measured something before, and was started to be timed.
    for job in ("checkpoint__awq", "cell__awq__perplexity", "cell__awq__divergence", "cell__awq__latency"):
        kill_within(start(spec_file, out), out / "unfinished" / job)
        for file, stamp in kept.items():
            assert file.stat().st_mtime_ns == stamp, f"{file} was written again"
        kept = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/*/*")}
    assert start(spec_file, out).wait(timeout=300) == 0
    for file, stamp in kept.items():
        assert file.stat().st_mtime_ns == stamp, f"{file} was written again"
    assert timeless(out / "comparison.json") == timeless(finished / "comparison.json")
    assert not (out / "scratch").exists()
    assert list((out / "unfinished").iterdir()) == []


def test_a_checkpoint_killed_half_way_is_gone_on_with(finished: Path, spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(spec_file, out)
    deadline = time.monotonic() + 240
    while not list(out.glob("scratch/*/checkpoint.partial/blocks/00000.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = next(out.glob("scratch/*/checkpoint.partial/blocks/00000.json"))
    stamp = kept.stat().st_ino
    process = start(spec_file, out)
    while not list(out.glob("checkpoints/awq/config.json")):
        assert process.poll() is None
        assert not kept.exists() or kept.stat().st_ino == stamp, "the finished block was quantized again"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for name in ("model.safetensors", "config.json", "quantize.json"):
        made, whole = (folder / "checkpoints" / "awq" / name for folder in (out, finished))
        assert made.read_bytes() == whole.read_bytes(), name


def test_an_interrupted_quantization_says_how_to_go_on(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-P", "-m", "awqbench", "quantize", str(tiny_llama), "--out", str(out), "--group-size", "32",
        "--calibration", "pydoc-topics", "--samples", "8", "--seq-len", "256",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=like_a_terminal)
    while not (tmp_path / "out.partial" / "blocks" / "00000.json").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "awqbench: interrupted; the same command with --resume goes on\n"
    assert not out.exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "quantize.json").is_file()
    assert not (tmp_path / "out.partial").exists()


def test_interrupt_is_130_and_says_how_to_go_on(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-P", "-m", "awqbench", "run", str(spec_file), "--out", str(out)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=like_a_terminal
    )
    while not (out / "unfinished" / "checkpoint__awq").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resumes" in said
    assert "Traceback" not in said
