"""A measured command's exit status, output and deadline."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import psutil


def test_exit_status_output_and_cost(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    code = "import sys; block = bytearray(50_000_000); print('done'); sys.exit(3)"
    cost = script("cost").measure([sys.executable, "-c", code], tmp_path / "log", 60, os.environ)
    assert cost.exit == 3
    assert (tmp_path / "log").read_text() == "done\n"
    assert cost.peak_rss > 50_000_000
    assert cost.cpu_s > 0


def test_the_memory_of_whoever_measures_is_not_counted(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    held = b"x" * 200_000_000
    cost = script("cost").measure([sys.executable, "-I", "-c", "pass"], tmp_path / "log", 60, os.environ)
    assert cost.peak_rss < len(held)


def test_what_a_child_of_the_command_costs_is_counted(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    cost = script("cost").measure([sys.executable, "-c", code], tmp_path / "log", 60, os.environ)
    assert cost.exit == 0
    assert cost.cpu_s >= 0.5


def test_the_whole_group_is_killed_at_the_deadline(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {child!r}])
print(child.pid, flush=True)
child.wait()
"""
    cost = script("cost").measure([sys.executable, "-c", code], tmp_path / "log", 3, os.environ)
    assert cost.exit == -signal.SIGKILL
    pid = int((tmp_path / "log").read_text())
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)  # the suite's time limit fails a child that lives on
