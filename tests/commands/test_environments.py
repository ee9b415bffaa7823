"""`awqbench env`: what is printed, as text and as JSON, and the exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from awqbench.cli import app
from awqbench.environments import catalog as defined


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One environment, e, which needs nothing."""
    folder = tmp_path / "suites" / "environments"
    folder.mkdir(parents=True)
    (folder / "environments.toml").write_text('[e]\nsummary = "a test"\nkinds = ["k"]\nmodules = ["json"]\n')
    (folder / "e.txt").write_text("# nothing\n")
    monkeypatch.setattr(defined, "content", lambda name: tmp_path / name)
    monkeypatch.setenv("AWQBENCH_ENVIRONMENTS", str(tmp_path / "made"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def env(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["env", *arguments])


def listed() -> dict[str, Any]:
    (row,) = json.loads(env("list", "--json").stdout)
    assert isinstance(row, dict)
    return row


def test_made_listed_and_removed(suites: Path, tmp_path: Path) -> None:
    before = listed()
    assert (before["status"], before["python"], before["create"]) == ("missing", None, "awqbench env create e")
    assert before["here"] is True
    shown = env("list").stdout
    assert "missing" in shown
    assert "size unmeasured" in shown
    assert "the Python that runs awqbench has it too" in shown

    made = env("create", "e")
    assert made.exit_code == 0, made.output
    assert "e: virtual environment (" in made.stderr
    assert str(tmp_path / "made" / "e" / "bin" / "python") in made.stdout
    after = listed()
    assert (after["status"], after["kinds"], after["variant"]) == ("ready", ["k"], "any")
    assert after["bytes"] > 0
    assert Path(after["python"]).exists()
    again = env("create", "e", "--json")
    assert json.loads(again.stdout) == after

    assert env("remove", "e").stdout == f"removed {tmp_path / 'made' / 'e'}\n"
    assert env("remove", "e").stdout == "there is no environment e\n"
    assert listed() == before


def test_a_dry_run_makes_nothing(suites: Path, tmp_path: Path) -> None:
    (suites / "e.txt").write_text("torch==2.0\n")
    shown = env("create", "e", "--dry-run").stdout
    assert "pip install torch==2.0" in shown
    assert "then imported there: json" in shown
    plan = json.loads(env("create", "e", "--dry-run", "--json").stdout)
    assert plan["requirements"] == ["torch==2.0"]
    assert plan["commands"][0][1:3] == ["-m", "venv"]
    assert list((tmp_path / "made").iterdir()) == []


def test_the_last_lines_of_pip_and_status_2(tmp_path: Path) -> None:
    """As a person sees it: the installer's own words, one line of ours, no traceback."""
    folder = tmp_path / "suites" / "environments"
    folder.mkdir(parents=True)
    (folder / "environments.toml").write_text('[e]\nsummary = "a test"\nkinds = []\nmodules = ["json"]\n')
    (folder / "e.txt").write_text("surely-not-there==1.0\n")
    program = (
        "import pathlib, awqbench.environments.catalog as defined, awqbench.cli as cli\n"
        f"defined.content = lambda name: pathlib.Path({str(tmp_path)!r}) / name\n"
        "cli.main()\n"
    )
    environ = os.environ | {"AWQBENCH_ENVIRONMENTS": str(tmp_path / "made"), "PIP_NO_INDEX": "1"}
    command = [sys.executable, "-P", "-c", program, "env", "create", "e"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("awqbench: cannot make the environment e: requirements of e.txt: exit status 1")
    assert any("No matching distribution found for surely-not-there==1.0" in line for line in lines[:-1])
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "made" / "e").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "f"), "unknown environment 'f'"),
        (("remove", "f"), "unknown environment 'f'"),
        (("create", "e", "--installer", "conda"), "unknown installer 'conda' (allowed: pip, uv)"),
        (("create", "e", "--variant", "rocm"), "unknown variant of the environment e 'rocm'"),
        (("create", "e", "--python", "/none"), "no Python interpreter at '/none'"),
    ],
)
def test_mistakes(suites: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in str(env(*arguments).exception)


@pytest.mark.parametrize("command", ["create", "list", "remove"])
def test_help_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, ["env", command, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "Example" in shown.output


def test_help_says_what_uv_may_do() -> None:
    shown = CliRunner().invoke(app, ["env", "create", "--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output
    assert "several GB of a CUDA build" in " ".join(shown.split())
