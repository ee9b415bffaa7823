"""What a command costs: wall time, CPU time of it and its children, and the memory of the largest of them.

As a script it is the launcher: on Linux a process's peak memory begins with that of whoever started it, so commands are
started from a fresh interpreter and not from one that holds a model.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """`exit` is negative for a signal: SIGKILL's at the deadline. `peak_rss` is the largest process's, in bytes."""

    exit: int
    wall_s: float
    cpu_s: float
    peak_rss: int


def measure(command: Sequence[str], log: Path, deadline_s: float, env: Mapping[str, str]) -> Cost:
    """Run a command in a process group of its own, its output in `log`; the group is killed at the deadline."""
    launcher = [sys.executable, "-I", str(Path(__file__).resolve()), str(deadline_s), str(log), *command]
    return Cost(**json.loads(subprocess.run(launcher, env=env, check=True, stdout=subprocess.PIPE).stdout))


def _launch(deadline_s: float, log: Path, command: Sequence[str]) -> Cost:
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    timer = threading.Timer(deadline_s, _kill_group, (process.pid,))
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
        _kill_group(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    # Linux counts ru_maxrss in kibibytes.
    return Cost(process.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    print(json.dumps(asdict(_launch(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))))
