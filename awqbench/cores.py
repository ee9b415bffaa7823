"""How many cores this process may use, and the control groups that say so. Standard library only: engines in other
environments ask it too."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOUNTED, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(mounted: Path = MOUNTED, own: Path = OWN) -> int:
    """Cores this process may run on: under taskset, or with a container's quota of time, fewer than the machine has.

    `mounted` is where control groups are, `own` the file that says which are this process's. Of a quota a part of a
    core counts as a whole one.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(map(_quota, groups("cpu", mounted, own)), default=math.inf)
    return there if quota >= there else max(1, math.ceil(quota))


def use_threads(asked: int | None) -> None:
    """Have torch compute with so many threads, else with its own number of them.

    That is one for each core of the machine: with a quota of time for two of sixty-four they would stand still most of
    it, so there are no more than the quota has cores for, unless OMP_NUM_THREADS says how many.
    """
    import torch

    own = torch.get_num_threads()
    fitting = own if os.environ.get("OMP_NUM_THREADS") else min(own, usable_cores())
    if asked or fitting < own:
        torch.set_num_threads(asked or fitting)


def groups(controller: str, mounted: Path = MOUNTED, own: Path = OWN) -> Iterator[Path]:
    """The folders of this process's control groups that may limit it in this respect, with those that they are in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 names no controllers. Of version 1 a container may see its own group at the top, under another path.
        top = mounted / controller if controllers else mounted
        yield top
        parts = Path(path.lstrip("/")).parts
        yield from (top.joinpath(*parts[:length]) for length in range(1, len(parts) + 1))


def _quota(group: Path) -> float:
    """Cores that a group may keep busy; infinite where it is not limited."""
    try:
        if (group / "cpu.max").is_file():  # version 2: "200000 100000" or "max 100000", microseconds
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
