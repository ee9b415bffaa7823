"""Every command explains itself with an example, and refuses what it does not know."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqbench.cli import _summary, app, main
from awqbench.errors import UserError
from awqbench.record.reader import Cell, Run
from awqbench.record.schema import CellResult, Manifest, Metric, RuleResult, Verdict
from awqbench.suites.base import item_table

COMMANDS = (
    "init", "quantize", "run", "compare", "gate", "baseline", "audit", "report", "inspect", "export", "card", "doctor",
)  # fmt: skip


def test_these_are_the_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output
    assert all(f" {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert CliRunner().invoke(app, [command, "--nonesuch"]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "none", "--to", "onnx", "--out", "x"), "unknown target 'onnx'"),
        (("export", "none", "--type", "q5", "--out", "x"), "unknown kind of GGUF 'q5'"),
        (("card", "none", "--run", "runs/none"), "no checkpoint"),
        (("init", "--preset", "domain"), "did you mean 'domains'"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, UserError), result.output
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_gate_without_rules_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 0 would read as "all gates pass"."""
    monkeypatch.chdir(tmp_path)
    Path("bench.toml").write_text('[model]\nsource = "none/here"\n[suites.perplexity]\n')
    result = CliRunner().invoke(app, ["run", "--gate"])
    assert isinstance(result.exception, UserError), result.output
    assert "bench.toml has no policy and no [[gates]]" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["bench.toml"]


def test_a_place_that_cannot_be_written_is_named_as_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by the temporary file that was to be renamed over it."""

    def app(standalone_mode: bool) -> None:
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "runs/.kept.x1y2", None, "runs/kept")

    monkeypatch.setattr("awqbench.cli.app", app)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="2"):
        main()
    signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "awqbench: Is a directory: runs/kept\n"


@pytest.mark.parametrize("unbuffered", ["1", ""], ids=["at once", "at the end"])
def test_output_that_nobody_reads_is_no_failed_gate(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command, env = [sys.executable, "-P", "-m", "awqbench", "policies", "list"], {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, env={**os.environ, **env}, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_json_holds_whole_figures_and_nothing_that_json_does_not_have(tmp_path: Path) -> None:
    """pandas writes decimals, of which a divergence of 2e-17 has none left; Python writes NaN, which jq refuses."""
    kl = Metric(id="divergence/kl", value=2.34567890123e-17, unit="nats", n=1, protocol="")
    result = CellResult(backend="b", suite="s", kind="divergence", role="candidate", key="", status="ok", metrics=[kl])
    manifest = Manifest(awqbench_version="", created="", spec={}, spec_hash="", policy_hash="", model={})
    rule = RuleResult(
        rule="r", kind="non-inferiority", suite="s", metric="m", candidate="b", verdict="inconclusive", margin=1.0,
        unit="nats", estimate=float("nan"), upper=float("inf"), reason="",
    )  # fmt: skip
    verdict = Verdict(policy_hash="", overall="inconclusive", rules=[rule])
    found = _summary(Run(tmp_path, manifest, [Cell(result, item_table([]))], verdict=verdict))
    (row,) = json.loads(json.dumps(found, allow_nan=False))["metrics"]
    assert (row["backend"], row["id"], row["value"], row["ci_low"]) == ("b", "divergence/kl", 2.34567890123e-17, None)
    assert found["verdict"]["rules"][0]["upper"] is None
