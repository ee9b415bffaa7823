"""Host figures of real child processes."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from awqbench.telemetry import host
from awqbench.telemetry.host import HostProbe

SPIN = "while True: pass"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SPIN!r}]); print('up', flush=True); input()"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """An idle process with a child that spins."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    with parent:
        yield parent
        os.killpg(parent.pid, 9)


def test_a_busy_grandchild_counts(busy: subprocess.Popen[str]) -> None:
    probe = HostProbe(busy.pid)
    first = probe.read()
    time.sleep(0.5)
    second = probe.read()
    assert list(first) == list(host.FIELDS)
    assert math.isnan(first["host_cpu_percent"])
    assert 0 < second["host_cpu_percent"] < 150
    assert second["host_rss_bytes"] > 2 * 2**20
    assert second["host_available_bytes"] > 0


def test_too_short_a_span_gives_no_percentage_and_loses_none(busy: subprocess.Popen[str]) -> None:
    probe = HostProbe(busy.pid)
    probe.read()
    assert math.isnan(probe.read()["host_cpu_percent"])
    time.sleep(0.4)
    assert probe.read()["host_cpu_percent"] > 0


def test_a_process_that_vanishes_leaves_the_machine_figures(busy: subprocess.Popen[str]) -> None:
    probe = HostProbe(busy.pid)
    probe.read()
    os.killpg(busy.pid, 9)
    busy.wait()
    # The grandchild's end is nobody's to wait for: the system takes its pages some time after the signal.
    for _ in range(500):
        if math.isnan((row := probe.read())["host_rss_bytes"]):
            break
        time.sleep(0.01)
    assert math.isnan(row["host_rss_bytes"])
    assert row["host_available_bytes"] > 0


def test_a_process_that_never_was() -> None:
    row = HostProbe(2**22 + 1).read()
    assert math.isnan(row["host_rss_bytes"])
    assert math.isnan(row["host_cpu_percent"])
