"""Host figures of a process tree, through psutil."""

from __future__ import annotations

import time
from math import nan

import psutil

FIELDS = ("host_cpu_percent", "host_rss_bytes", "host_available_bytes")
REFRESH_SECONDS = 5.0
# The kernel counts CPU time in ticks of 10 ms: over a shorter span than this a percentage is mostly rounding.
SHORTEST_SPAN = 0.05
# Finding children reads every process of the machine; it may take this share of a core and no more.
WALK_SHARE = 0.002


class HostProbe:
    """CPU and memory of `pid` and its descendants, and the memory the machine has left.

    A process that vanishes between two readings is left out. The resident sets are summed, so pages that two processes
    of the tree share are counted twice.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._tree: dict[int, psutil.Process] = {}
        self._busy: dict[int, float] = {}
        self._since: float | None = None
        self._walk_due = 0.0

    def read(self) -> dict[str, float]:
        """A figure for each of `FIELDS`: CPU per cent of one core since the last reading (NaN at first), and bytes."""
        now = time.monotonic()
        if now >= self._walk_due:
            self._find_children(now)
        busy: dict[int, float] = {}
        rss = 0
        for pid, process in list(self._tree.items()):
            try:
                with process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                resident = 0
            if not resident:  # gone, or a zombie that nobody has reaped yet
                del self._tree[pid]
                continue
            busy[pid] = times.user + times.system
            rss += resident
        figures = (
            self._percent(now, busy),
            float(rss) if busy else nan,
            float(psutil.virtual_memory().available),
        )
        return dict(zip(FIELDS, figures, strict=True))

    def _percent(self, now: float, busy: dict[int, float]) -> float:
        span = nan if self._since is None else now - self._since
        if span < SHORTEST_SPAN:
            return nan
        used = sum(max(0.0, seconds - self._busy.get(pid, seconds)) for pid, seconds in busy.items())
        self._since, self._busy = now, busy
        return 100 * used / span if busy else nan

    def _find_children(self, now: float) -> None:
        try:
            root = self._tree.get(self._pid) or psutil.Process(self._pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            family = []
        self._tree = {process.pid: self._tree.get(process.pid, process) for process in family}
        cost = time.monotonic() - now
        self._walk_due = now + max(REFRESH_SECONDS, cost / WALK_SHARE)
