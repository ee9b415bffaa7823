"""`awqbench kernels`: exit codes and one line where there is no GPU; runs with little more than torch installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from awqbench.cli import app
from awqbench.errors import BackendUnavailable, UserError
from awqbench.kernelbench import checks, child
from awqbench.kernelbench.outcome import CheckFailed, Row
from awqbench.kernelbench.results import Session, save
from awqbench.kernelbench.table import BEGIN, END, UNMEASURED

CPU = ("--device", "cpu")
TINY = ("--shapes", "64x64", "--group-size", "32", "--batches", "1", "--dtypes", "fp16", "--modes", "back-to-back")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["kernels", *map(str, arguments)])


@pytest.mark.parametrize("command", ["check", "bench", "record", "table"])
def test_help_shows_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, ["kernels", command, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "Example" in shown.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["check", "bench"])
def test_without_a_gpu_there_is_one_line_and_status_2(command: str) -> None:
    result = invoke(command)
    assert isinstance(result.exception, BackendUnavailable)
    assert result.exception.exit_code == 2
    assert str(result.exception).startswith("no GPU: this torch has no CUDA") or "torch finds none" in str(
        result.exception
    )
    assert "\n" not in str(result.exception)


def test_kernels_that_cannot_be_built_are_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("awqbench.kernelbench.ours.cuda.unavailable", lambda device: "no nvcc for the CUDA kernels")
    result = invoke("check")
    assert isinstance(result.exception, BackendUnavailable)
    assert str(result.exception) == "no nvcc for the CUDA kernels"


def test_check_writes_every_row(tmp_path: Path) -> None:
    out = tmp_path / "new" / "check.json"
    result = invoke("check", *CPU, "--quick", "--only", "round-trip,graph", "--out", out)
    assert result.exit_code == 0, result.output
    assert "PASS  ours" in result.output
    assert result.output.splitlines()[-1] == "4 pass; 0 fail; 0 error; 2 skip"
    record = json.loads(out.read_text())
    assert record["device"] == "CPU"
    assert len(record["rows"]) == 6
    assert record["versions"]["torch"] == torch.__version__


def test_a_failure_stops_nothing_and_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> str:
        raise CheckFailed("W[0, 3] is wrong")

    monkeypatch.setitem(checks.CHECKS, "one-hot", failing)
    result = invoke("check", *CPU, "--quick", "--only", "one-hot,round-trip")
    assert result.exit_code == 1
    assert "W[0, 3] is wrong" in result.output
    assert "FAILING ours: one-hot" in result.output
    assert "PASS  ours           round-trip" in result.output
    as_json = invoke("check", *CPU, "--quick", "--only", "one-hot", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["summary"]["failing"] == ["ours: one-hot"]


def test_the_sanitizer_alone_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is faked: no check runs but the tools'."""
    row = Row("ours", "memcheck", "small shapes", "pass", "2 checks watched", 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("awqbench.kernelbench.check_command.our_kernels", lambda device, variants: [None])
    monkeypatch.setattr("awqbench.kernelbench.check_command.sanitize", lambda budget: iter([row]))
    result = invoke("check", "--only", "sanitizer")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [row.line(), "1 pass; 0 fail; 0 error; 0 skip"]


def test_one_of_several_gpus_is_the_current_one_while_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and graphs are of the current device: one captured on another holds no launch, and costs no time."""
    current: list[torch.device] = []
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)

    def session(options: object, device: torch.device, quiet: bool) -> dict[str, Any]:
        asked.append(device)
        return {"bad": []}

    monkeypatch.setattr("awqbench.kernelbench.bench_command.bench_session", session)
    assert invoke("bench", "--device", "cuda:1").exit_code == 0
    assert current == asked == [torch.device("cuda", 1)]
    monkeypatch.setattr("awqbench.kernelbench.child.our_kernels", lambda device, variants: [None])
    assert child.main(["--device", "cuda:1", "--only", "sanitizer"]) == 0
    assert current == [torch.device("cuda", 1)] * 2
    beyond = invoke("check", "--device", "cuda:2")
    assert isinstance(beyond.exception, UserError)
    assert str(beyond.exception) == "no device 'cuda:2' (allowed: cuda:0 to cuda:1)"


def test_a_group_of_less_than_nothing_is_refused() -> None:
    result = invoke("bench", *CPU, "--shapes", "64x64", "--group-size", "-4", "--out", "x.json")
    assert (result.exit_code, type(result.exception)) == (2, SystemExit), result.output


def test_nothing_checked_is_not_a_pass() -> None:
    result = invoke("check", *CPU, "--quick", "--only", "graph")
    assert isinstance(result.exception, UserError)
    assert "nothing was checked" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "--only", "speed"), "unknown check 'speed'"),
        (("check", "--device", "tpu"), "unknown device 'tpu'"),
        (("check", "--device", "cuda:x"), "unknown device 'cuda:x'"),
        (("bench", *CPU, *TINY), "times of a CPU are no measurements"),
        (("bench", *CPU, *TINY, "--peers", "x", "--out", "x.json"), "unknown peer 'x'"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert isinstance(result.exception, UserError), result.output
    assert message in str(result.exception)


def test_bench_on_a_cpu_and_its_table(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    result = invoke("bench", *CPU, *TINY, "--out", out)
    assert result.exit_code == 0, result.output
    assert "64x64 g32 M=1 fp16 back-to-back" in result.output
    assert "marlin: missing: needs a GPU" in result.output
    assert "geometric mean" in result.output
    as_json = invoke("bench", *CPU, *TINY, "--out", out, "--json")
    assert json.loads(as_json.stdout)["complete"] is True
    document = tmp_path / "doc.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    assert invoke("table", "--results", tmp_path, "--into", document, "--full").exit_code == 0
    assert "not a measurement of any kernel" in document.read_text()


def test_measurements_from_elsewhere_are_recorded_once(tmp_path: Path) -> None:
    measured = tmp_path / "results.json"
    save(measured, Session("2026-01-01T00:00:00Z", "NVIDIA H100 80GB HBM3", "events"))
    for _ in range(2):
        assert invoke("record", measured, "--results", tmp_path / "kept").exit_code == 0
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name == "nvidia-h100-80gb-hbm3.json"
    assert kept.read_text() == measured.read_text()
    of_cpu = tmp_path / "cpu.json"
    save(of_cpu, Session("1", "CPU", "loop"))
    assert "no measurements" in str(invoke("record", of_cpu, "--results", tmp_path / "kept").exception)


def test_table_without_results(tmp_path: Path) -> None:
    assert invoke("table", "--results", tmp_path).output.strip() == UNMEASURED
    document = tmp_path / "doc.md"
    document.write_text("nothing")
    assert isinstance(invoke("table", "--into", document).exception, UserError)


def test_it_runs_with_torch_numpy_and_typer_alone(tmp_path: Path) -> None:
    """What a GPU machine's image lacks of our dependencies, and what it may lack, cannot be imported here."""
    script = tmp_path / "bare.py"
    script.write_text(
        textwrap.dedent(
            """
            import json
            import sys

            BLOCKED = {
                "accelerate", "altair", "datasets", "fairlearn", "gguf", "jinja2", "lm_eval", "pandas", "psutil",
                "pyarrow", "pydantic", "pynvml", "safetensors", "scipy", "statsmodels", "vl_convert", "yaml",
            }

            class Bare:
                def find_spec(self, name, path=None, target=None):
                    frame = sys._getframe(1)
                    while "importlib" in frame.f_code.co_filename:
                        frame = frame.f_back
                    # Newer versions of typer need pydantic themselves; those of a GPU machine's image do not.
                    asking = frame.f_globals["__name__"].partition(".")[0]
                    if name.partition(".")[0] in BLOCKED and asking not in {"typer", "pydantic"}:
                        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

            sys.meta_path.insert(0, Bare())
            from awqbench.cli import main

            for arguments in json.loads(sys.argv[1]):
                sys.argv = ["awqbench", "kernels", *arguments]
                try:
                    main()
                except SystemExit as end:
                    print("status", end.code, flush=True)
            """
        )
    )
    commands = [
        ["check", *CPU, "--quick", "--only", "round-trip"],
        ["bench", *CPU, *TINY, "--out", str(tmp_path / "cpu.json")],
        ["table", "--results", str(tmp_path)],
        *([] if torch.cuda.is_available() else [["bench"]]),
    ]
    done = subprocess.run(
        [sys.executable, "-P", str(script), json.dumps(commands)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    statuses = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("status")]
    assert statuses[:3] == [0, 0, 0], done.stderr
    if not torch.cuda.is_available():
        assert statuses[3] == 2
        assert done.stderr.startswith("awqbench: no GPU")
        assert len(done.stderr.splitlines()) == 1
