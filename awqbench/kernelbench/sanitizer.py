"""NVIDIA's compute-sanitizer over the smallest checks: bad accesses, races, unset memory, misused barriers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.outcome import Row, Status

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMIT = 150.0  # seconds per tool
NAMESPACE = "awqbench"
FOUND = 23  # exit status asked for where the tool found something


def find() -> str | None:
    """The program, on the path or in the toolkit's usual place."""
    usual = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(usual) if usual.is_file() else None)


def sanitize(budget: Budget, program: str | None = None, tools: tuple[str, ...] = TOOLS) -> Iterator[Row]:
    """A row per tool. Skipped without the program, and where less than half a minute is left."""
    program = program or find()
    for tool in tools:
        if program is None:
            yield _row(tool, "skip", "compute-sanitizer is not installed", 0.0)
        elif budget.left() < 30:
            yield _row(tool, "skip", "no time left", 0.0)
        else:
            yield _run(program, tool, min(LIMIT, budget.left()))


def _run(program: str, tool: str, limit: float) -> Row:
    # torch's allocator would hide a write past a tensor inside its own blocks: each tensor gets an allocation.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    child = [sys.executable, "-P", "-m", "awqbench.kernelbench.child", "--tiny"]
    began = time.monotonic()
    # Our kernels alone, by the namespace in their mangled names: others' are slow to watch and not ours to judge.
    command = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "5"]
    command += ["--kernel-name", f"kernel_substring={NAMESPACE}", *child]
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        status, detail = judge(FOUND if _complaints(output)[1:] else 0, output)
        detail = f"not done within {limit:.0f} s; so far: {detail}"
        return _row(tool, "fail" if status == "fail" else "skip", detail, limit)
    status, detail = judge(done.returncode, done.stdout)
    return _row(tool, status, detail, time.monotonic() - began)


def judge(code: int, output: str) -> tuple[Status, str]:
    """What a finished run means."""
    complaints = _complaints(output)
    if any("not supported" in line.lower() for line in complaints):
        return "skip", "compute-sanitizer does not support this device or driver"
    summary = next((line for line in reversed(complaints) if "SUMMARY" in line), "")
    if code == FOUND or ((match := re.search(r"SUMMARY: (\d+)", summary)) and int(match[1])):
        first = next((line for line in complaints if line and "COMPUTE-SANITIZER" not in line), "")
        return "fail", f"{first}; {summary}"
    rows = output.count('"row"')
    if code or not rows:
        return "error", f"exit status {code}: {output.strip().splitlines()[-1] if output.strip() else 'no output'}"
    failed = output.count('"status": "fail"') + output.count('"status": "error"')
    return ("fail" if failed else "pass"), f"{rows} checks watched, {failed} of them failed"


def _complaints(output: str) -> list[str]:
    """The tool's own lines, the first of which is its name."""
    return [line.lstrip("= ").strip() for line in output.splitlines() if line.startswith("=========")]


def _row(tool: str, status: Status, detail: str, seconds: float) -> Row:
    return Row("ours", tool, "compute-sanitizer, small shapes", status, detail, round(seconds, 1))
