"""The processes that descend from a worker, wherever they went: found through /proc, ended until none is left.

Standard library only. Where there is no /proc (macOS), nothing is found and process groups have to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

# In the environment of a worker and of all it starts; the value is a random word, new for each worker.
MARK = "AWQBENCH_WORKER"
# A process that waits for a device can take seconds to die of SIGKILL.
PATIENCE_SECONDS = 10.0


def descendants(root: int) -> set[int]:
    """Living children of `root`, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), []) if pid not in found]
        found.update(new)
        waiting += new
    return found


def marked(word: str) -> set[int]:
    """Living processes that were started with this word as their mark, except this one."""
    wanted = f"{MARK}={word}".encode()
    found = set()
    for pid in _pids():
        # Another user's process cannot be read; one that has just ended is not there.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if wanted in environment.read().split(b"\0"):
                found.add(pid)
    return found - {os.getpid()}


def end(
    find: Callable[[], set[int]], reap: Callable[[], None] = lambda: None, patience_s: float = PATIENCE_SECONDS
) -> bool:
    """Kill what `find` finds, again and again, because what is killed may have forked meanwhile.

    Returns whether nothing was left when it ended.
    """
    deadline = time.monotonic() + patience_s
    while found := find():
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _pids() -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _parents() -> dict[int, int]:
    """Process -> parent, of all that live."""
    parents = {}
    for pid in _pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:
            # pid (name) state parent ...; a name may hold spaces and parentheses
            state, parent = stat.read().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                parents[pid] = int(parent)
    return parents
