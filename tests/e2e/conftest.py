"""Commands as a user runs them: real processes, a real tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awqbench import cli

AWQBENCH = [sys.executable, "-P", "-m", "awqbench"]
Command = Callable[..., subprocess.CompletedProcess[str]]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

SPEC = """
threads = 1
[model]
source = "{model}"
[quantize]
group_size = 32
calibration = "pydoc-topics[:50%]"
samples = 2
seq_len = 64
[suites.perplexity]
text = "pydoc-topics[50%:]"
window = 96
windows = 6
[suites.divergence]
text = "pydoc-topics[50%:]"
window = 64
windows = 3
decode_window = 8
decode_windows = 2
[suites.tasks]
limit = 12
[suites.fairness]
limit = 48
[suites.latency]
batch_sizes = [1, 2]
prompt_tokens = 8
new_tokens = 4
repeats = 2
[[gates]]
metric = "perplexity/*"
margin = 0.5
unit = "relative"
[[gates]]
metric = "divergence/*/kl"
margin = 5.0
"""


@pytest.fixture(scope="session")
def awqbench() -> Command:
    """Run a command; returns its status and what it printed."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AWQBENCH, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            check=False,
        )

    return run


@pytest.fixture
def awqbench_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The same in this process, which has imported everything: for what ends before anything is measured."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["awqbench", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), said.out, said.err)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def spec_file(made_once: MadeOnce, tiny_llama: Path) -> Path:
    """A spec with every suite, small enough for seconds."""
    return made_once("bench.toml", lambda path: path.write_text(SPEC.format(model=tiny_llama)))


@pytest.fixture(scope="session")
def finished(awqbench: Command, made_once: MadeOnce, spec_file: Path) -> Path:
    """A run of that spec, never interrupted. It belongs to all tests: who changes it takes a copy."""

    def measure(out: Path) -> None:
        done = awqbench("run", spec_file, "--out", out)
        assert done.returncode == 0, done.stderr

    return made_once("finished", measure)
