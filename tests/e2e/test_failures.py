"""A plugin's engine fails in every way an engine can: one failed cell each, and the rest of the run complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from awqbench import load_run

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]

HEAD = """
threads = 1
[model]
source = "{model}"
[noise_floor]
enabled = false
[suites.perplexity]
text = "pydoc-topics"
window = 16
windows = 2
[backends.reference]
kind = "reference"
"""
BACKEND = """
[backends.{name}]
kind = "trouble"
options.how = "{how}"
timeout_s = {timeout}
"""
# name -> how it fails, what the cell's reason says, what the last lines of its log hold
FAILURES = {
    "load": ("exits at load", "load: the worker exited with status 3: cannot map", "cannot map <b>block 7</b> | of"),
    "refuse": ("refuses", r"does not take \(allowed: tables\)", "looking at the weights"),
    "exit": ("exits", "score: the worker exited with status 7: scoring 2", "scoring 2 sequences"),
    "segfault": ("crashes", "score: the worker was ended by SIGSEGV", "Segmentation fault"),
    "killed": ("is killed", r"SIGKILL \(out of memory\?\)", "scoring 2 sequences"),
    "hang": ("hangs", "score: no answer within its deadline", "scoring 2 sequences"),
    "bug": ("raises", r"score: the cache has 0 pages \(traceback", "RuntimeError: the cache has 0 pages"),
    "nan": ("nan", "perplexity/.*: a score is not finite", "scoring 2 sequences"),
    "short": ("too few", "score: 2 results were expected, 1 came back", "scoring 2 sequences"),
}
FINE = {"healthy": "", "noisy": "noise"}


@pytest.fixture(scope="module")
def spec(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("failures") / "bench.toml"
    text = HEAD.format(model=tiny_llama)
    for name, how in [*FINE.items(), *((name, failure[0]) for name, failure in FAILURES.items())]:
        text += BACKEND.format(name=name, how=how, timeout=2 if how == "hangs" else 60)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def environment(plugin_folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(plugin_folder)}


@pytest.fixture(scope="module")
def broken(
    awqbench: Command, spec: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of them all."""
    out = tmp_path_factory.mktemp("failures") / "run"
    return out, awqbench("run", spec, "--out", out, env=environment)


def test_each_costs_one_cell(
    broken: tuple[Path, subprocess.CompletedProcess[str]], awqbench: Command, spec: Path, environment: dict[str, str]
) -> None:
    out, done = broken
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    cells = {cell.result.backend: cell for cell in load_run(out).cells}
    assert set(cells) == {"reference", *FINE, *FAILURES}
    for name in ("reference", *FINE):
        assert cells[name].result.status == "ok", cells[name].result.reason
        assert cells[name].result.log_tail == []
        assert len(cells[name].items) == 2
    for name, (_, reason, line) in FAILURES.items():
        result = cells[name].result
        assert result.status == "failed", name
        assert result.reason is not None
        assert re.search(reason, result.reason), (name, result.reason)
        assert line in "\n".join(result.log_tail), (name, result.log_tail)
        assert len(result.log_tail) <= 20
        assert (out / "cells" / name / "perplexity" / "log.txt").is_file()
    # Garbage on its output changes nothing: it is the same table of bigrams.
    assert cells["noisy"].result.metrics == cells["healthy"].result.metrics
    assert (out / "cells" / "noisy" / "perplexity" / "log.txt").stat().st_size > 4 * 16384

    page, comment = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "cannot map &lt;b&gt;block 7&lt;/b&gt; | of the weights" in page
    assert "    cannot map <b>block 7</b> | of the weights" in comment  # in a block of code
    for name in FAILURES:
        assert f"Log of {name}, perplexity: its last lines" in page

    kept = {name: os.stat(out / "cells" / name / "perplexity" / "result.json").st_mtime_ns for name in cells}
    # What was wrong with one of them is mended: the others fail again, and nothing else is measured again.
    spec.write_text(spec.read_text().replace('"too few"', '""'))
    again = awqbench("run", spec, "--out", out, "--json", env=environment)
    assert again.returncode == 4, again.stderr
    found = {cell["backend"]: cell["status"] for cell in json.loads(again.stdout)["cells"]}
    assert {name for name, status in found.items() if status == "failed"} == set(FAILURES) - {"short"}
    changed = {
        name for name in cells if os.stat(out / "cells" / name / "perplexity" / "result.json").st_mtime_ns != kept[name]
    }
    assert changed == set(FAILURES)
