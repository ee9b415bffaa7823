"""Checks in a child process that is started again after a crash, a lost CUDA context or a hang."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, Queue
from typing import Any

from awqbench.errors import BackendUnavailable
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.outcome import Row

PATIENCE = 120.0  # seconds that one check may take; the largest take a few
STARTUP = 300.0  # importing torch on a cold machine, and a first build

COMMAND = (sys.executable, "-P", "-m", "awqbench.kernelbench.child")


def supervise(
    options: Sequence[str], budget: Budget, command: Sequence[str] = COMMAND, patience: float = PATIENCE
) -> Iterator[Row]:
    """The rows of all checks. A check that takes its process down is an error row, and the next begins in a new one.

    Raises BackendUnavailable where the child ends before its first check.
    """
    skip = 0
    while not budget.spent():
        child = subprocess.Popen([*command, *options, "--skip", str(skip)], stdout=subprocess.PIPE, text=True)
        lines, reader = _lines(child)
        running: dict[str, Any] | None = None
        hung = False
        try:
            while True:
                try:
                    wait = patience if running else STARTUP
                    message = lines.get(timeout=min(wait, budget.left() + 1))
                except Empty:
                    if budget.spent():
                        return
                    hung = True
                    break
                if message is None:
                    break
                if "begin" in message:
                    running = message
                elif "row" in message and running:
                    skip = running["begin"] + 1
                    running = {"begin": skip, "of": running["of"]} if skip < running["of"] else None
                    yield Row(**message["row"])
                    if running is None or budget.spent():
                        return
        finally:
            child.kill()
            child.wait()
            reader.join(timeout=10)
        if running is None:
            why = f"exit status {child.returncode}; see the message above"
            if skip == 0:
                raise BackendUnavailable(f"the checks did not start: {why}")
            yield Row("all", "process", "a new one after a crash", "error", f"it did not start: {why}", 0.0)
            return
        if "kernel" in running:  # a check that began and did not end
            why = f"no answer within {patience:.0f} s" if hung else f"its process ended with status {child.returncode}"
            yield Row(running["kernel"], running["check"], running["case"], "error", why, 0.0)
            skip = running["begin"] + 1
            if skip >= running["of"]:
                return


def _lines(child: subprocess.Popen[str]) -> tuple[Queue[dict[str, Any] | None], threading.Thread]:
    """The child's messages, then None; and the thread that reads them."""
    queue: Queue[dict[str, Any] | None] = Queue()

    def read() -> None:
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                if line.startswith("{") and line.endswith("}\n"):  # others print too, and a killed child half a line
                    queue.put(json.loads(line))
        queue.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return queue, reader
