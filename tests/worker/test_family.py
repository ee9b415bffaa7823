"""Nothing that a worker started outlives it, however it, its client or its guard ends. Real processes throughout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from awqbench.backends.kind import Kind
from awqbench.worker import family
from awqbench.worker.client import Worker, WorkerFailed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descendants are found through /proc")

KIND = Kind("trouble", "awqbench_trouble.engine:Trouble", "fails on demand", weights="model")
CLIENT = """
import json, signal, sys
from pathlib import Path
from awqbench.backends.kind import Kind
from awqbench.worker.client import Worker

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
kind = Kind("trouble", "awqbench_trouble.engine:Trouble", "fails on demand", weights="model")
with Worker(kind, json.loads(sys.argv[1]), Path(sys.argv[2])) as worker:
    print(json.dumps([worker.pid, *worker.memory().values()]), flush=True)
    signal.pause()
"""

Start = Callable[[], Worker]


@pytest.fixture
def start(tiny_llama: Path, plugin_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts workers whose engine leaves processes behind."""
    started: list[Worker] = []

    def make() -> Worker:
        options = {"model_dir": str(tiny_llama), "settings": {"how": "children"}}
        worker = Worker(KIND, options, tmp_path / "log.txt", environment={"PYTHONPATH": str(plugin_folder)})
        started.append(worker.__enter__())
        return worker

    yield make
    for worker in started:
        worker.close(grace_s=0)


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while left := alive(pids):
        assert time.monotonic() < deadline, f"{left} of {pids} are left"
        time.sleep(0.02)


def test_on_close(start: Start) -> None:
    worker = start()
    pids = [worker.pid, *worker.memory().values()]
    assert alive(pids) == pids
    assert worker.close() == 0
    assert alive(pids) == []
    assert worker.close() == 0  # once more does no harm
    with pytest.raises(WorkerFailed, match="the worker is gone"):
        worker.memory()


def test_on_a_deadline(start: Start) -> None:
    worker = start()
    pids = [worker.pid, *worker.memory().values()]
    os.kill(worker.pid, signal.SIGSTOP)  # as good as a hang: not even a beat comes
    worker.timeout_s = 0.3
    with pytest.raises(WorkerFailed, match="deadline"):
        worker.memory()
    assert alive(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_on_the_workers_own_end(start: Start, number: signal.Signals) -> None:
    worker = start()
    pids = [worker.pid, *worker.memory().values()]
    os.kill(worker.pid, number)
    with pytest.raises(WorkerFailed, match=number.name):
        worker.memory()
    assert alive(pids) == []  # the guard ends when they have


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_on_the_clients_end(tiny_llama: Path, plugin_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    options = json.dumps({"model_dir": str(tiny_llama), "settings": {"how": "children"}})
    client = subprocess.Popen(
        [sys.executable, "-P", "-c", CLIENT, options, str(tmp_path / "log.txt")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(plugin_folder)},
    )  # fmt: skip
    assert client.stdout is not None
    pids = json.loads(client.stdout.readline())
    assert alive(pids) == pids
    client.send_signal(number)
    client.wait(timeout=30)
    client.stdout.close()
    if number == signal.SIGINT:
        assert alive(pids) == []  # Ctrl-C returns when all is clean
    assert_gone(pids)


def test_on_the_guards_end(start: Start) -> None:
    """Whoever kills even the guard leaves orphans, which the client finds by their mark."""
    worker = start()
    worker_pid, found = worker.pid, worker.memory()
    try:
        guard = psutil.Process(worker_pid).ppid()
        assert guard != os.getpid()
        os.kill(guard, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="SIGKILL"):
            worker.memory()
        worker.close()
        assert_gone([worker_pid, found["session"], found["orphan"]])
    finally:
        with suppress(ProcessLookupError):
            os.kill(found["stranger"], signal.SIGKILL)  # no parent, no mark: this one nobody finds


def test_the_kernel_takes_the_worker_first_when_memory_runs_out(start: Start) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{start().pid}/oom_score_adj").read_text()) >= max(own, 500)


def test_descendants_are_found_through_names_with_parentheses(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        assert child.pid in family.descendants(os.getpid())
        assert family.end(lambda: family.descendants(os.getpid()) & {child.pid}, child.poll)  # type: ignore[arg-type]
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
