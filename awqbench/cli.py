"""The commands: parse, call, print. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from awqbench import __version__
from awqbench.commands.attribute import EXAMPLES as ATTRIBUTE
from awqbench.commands.attribute import attribute
from awqbench.commands.cache import cache
from awqbench.commands.checkpoint import card, export
from awqbench.commands.environments import environments
from awqbench.commands.kernels import kernels
from awqbench.commands.options import Confirm, Json
from awqbench.commands.policies import policies
from awqbench.commands.quantize import EXAMPLES as QUANTIZE
from awqbench.commands.quantize import quantize
from awqbench.errors import AwqbenchError, ExitCode, UserError

app = typer.Typer(
    name="awqbench",
    help="May this quantized language model ship? Paired evidence: quality, subgroup fairness, latency, memory.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

BROKEN_PIPE = 128 + signal.SIGPIPE  # as a shell has it
BUG = 70  # EX_SOFTWARE; Python's own 1 would read as "a gate fails"

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory made by [bold]awqbench run[/].")]


def main() -> None:
    """Run a command; errors the user can mend are one line and exit status 2, never a traceback."""
    # Progress bars of libraries would tear ours; warnings they print about each other help nobody here.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("awqbench").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled CI job cleans up as Ctrl-C does
    try:
        code = app(standalone_mode=False)  # typer hands back the status of typer.Exit, and 130 for Ctrl-C
    except typer.Abort:
        code = ExitCode.INTERRUPTED
    except SystemExit as ended:
        # Typer ends with 1 when nobody reads what is printed any more; that would read as "a gate fails".
        sys.exit(BROKEN_PIPE if ended.code == 1 else ended.code)
    except AwqbenchError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except OSError as error:
        # Files that can't be written are the user's to mend; anything else without a file name is a bug.
        if error.filename is None and error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
            traceback.print_exc()
            sys.exit(BUG)
        # Of a rename the second name is the one that was asked for, the first a temporary one.
        _fail(f"{error.strerror}: {error.filename2 or error.filename or 'while writing a result'}", ExitCode.USER_ERROR)
    except Exception as error:
        show = getattr(error, "show", None)  # what typer raises for a wrong option knows how to print itself
        if show is None:
            traceback.print_exc()
            sys.exit(BUG)
        show()
        sys.exit(ExitCode.USER_ERROR)
    if code == ExitCode.INTERRUPTED:
        _fail("interrupted; the same command resumes", code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again, and ends with 120
        code = BROKEN_PIPE
    sys.exit(code or ExitCode.DONE)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def init(
    preset: Annotated[
        str,
        typer.Option(
            help="smoke (a minute), default (minutes on two cores), full (hours), domains (how much the calibration "
            "text matters), engines (one checkpoint in every engine), or fairness (all its sets)."
        ),
    ] = "default",
    model: Annotated[str | None, typer.Option(help="A folder, a packaged name or a hub id.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the spec.")] = Path("bench.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented spec to start from.

    Example: [bold]awqbench init --preset default --model ./my-model --out bench.toml[/]
    """
    from awqbench.presets import preset_text

    text = preset_text(preset, model)
    if out.exists() and not force:
        raise UserError(f"{out} exists already: choose another --out, or add --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"wrote {out}; next: awqbench run {out} --out runs/first")


app.command(help=QUANTIZE)(quantize)
app.command(help=ATTRIBUTE)(attribute)


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="The spec.")] = Path("bench.toml"),
    out: Annotated[Path, typer.Option(help="The run directory; an existing one is resumed.")] = Path("run"),
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with the verdict's status, as awqbench gate does.")
    ] = False,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Whose answers are looked up where an earlier run kept them: off, reference or all; default: the "
            "spec's \\[cache]. Never timings, the noise floor or parity."
        ),
    ] = None,
    confirm: Confirm = False,
    as_json: Json = False,
) -> None:
    """Measure what a spec says, judge it and write the report. Running it again resumes.

    Exit status: 0 measured, 4 a cell failed; with --gate also 1 a gate fails, 3 inconclusive.

    Example: [bold]awqbench run bench.toml --out runs/first[/]
    Example: [bold]awqbench run bench.toml --out runs/nightly --gate --confirm[/]
    """
    from awqbench.gate import exit_code
    from awqbench.policies import declared
    from awqbench.spec import load_spec

    checked = load_spec(spec, {} if cache is None else {"cache.responses": cache})
    if gate and not declared(checked).gates:
        raise UserError(f"--gate, and {spec} has no policy and no [[gates]]: nothing says what may ship")
    done = _measure(checked, out, as_json, confirm=confirm)
    status = exit_code(done.verdict) if gate and done.verdict is not None else ExitCode.DONE
    raise typer.Exit(status or _measured(done))


@app.command()
def compare(
    path: RunPath,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="A backend of the run to compare against; or an earlier run, or a file made by awqbench baseline: "
            "each backend is compared with itself there. Default: the reference."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show paired differences with intervals, flips, smallest detectable effects and the noise floor.

    Example: [bold]awqbench compare runs/first --baseline rtn[/]
    Example: [bold]awqbench compare runs/second --baseline runs/first[/]
    """
    from awqbench.printing import print_comparison
    from awqbench.record.reader import load_run
    from awqbench.score import compare_run

    comparison = compare_run(load_run(path), baseline, write=False)  # whoever looks may not be allowed to write
    if as_json:
        print(comparison.model_dump_json(indent=2))
    else:
        print_comparison(comparison)


@app.command()
def gate(
    path: RunPath,
    policy: Annotated[
        str | None,
        typer.Option(
            help="A policy that [bold]awqbench policies list[/] shows, or a TOML file with [[gates]]; default: the "
            "run's own."
        ),
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="An earlier run, or a file made by awqbench baseline.")] = None,
    confirm: Confirm = False,
    as_json: Json = False,
) -> None:
    """Judge a run. Exit status: 0 all pass, 1 a gate fails, 3 inconclusive, 4 a measurement is missing.

    Example: [bold]awqbench gate runs/first --policy mlperf-99[/]
    Example: [bold]awqbench gate runs/first --policy release.toml --confirm[/]
    """
    from awqbench.gate import exit_code
    from awqbench.printing import print_verdict
    from awqbench.record.reader import load_run
    from awqbench.score import judge_run

    if confirm and baseline:
        raise UserError("--confirm needs other items than the first, and a baseline holds no others: leave one out")
    if confirm:
        verdict = _confirmed(path, policy).verdict
    else:
        # A verdict against a stored baseline, or by another policy, answers another question: it isn't the run's own.
        verdict = judge_run(load_run(path), policy, baseline, write=policy is None and baseline is None)
    if as_json:
        print(verdict.model_dump_json(indent=2))
    else:
        print_verdict(verdict)
    raise typer.Exit(exit_code(verdict))


@app.command()
def baseline(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("baseline.json"),
) -> None:
    """Keep a run's items in one small file, to commit and to gate later runs against.

    Example: [bold]awqbench baseline runs/first --out baseline.json[/]
    """
    from awqbench.record.baseline import write_baseline
    from awqbench.record.reader import load_run

    count = write_baseline(load_run(path), out)
    print(f"wrote {out}: {count} items ({out.stat().st_size / 1024:.0f} kB)")


@app.command()
def audit(
    checkpoint: Annotated[Path, typer.Argument(help="A quantized checkpoint's folder, or a GGUF file.")],
    reference: Annotated[str, typer.Option(help="The unquantized model: a folder, a packaged name or a hub id.")],
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("audit"),
    preset: Annotated[str, typer.Option(help="smoke, default or full.")] = "default",
    engine: Annotated[
        str | None,
        typer.Option(help="What runs it (awq, vllm, llamacpp, gptqmodel, transformers ...); default: what fits it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure an existing checkpoint against its reference, with round-to-nearest left out.

    Example: [bold]awqbench audit ./my-model-awq --reference ./my-model --out runs/audit[/]
    Example: [bold]awqbench audit ./my-model-Q4_K_M.gguf --reference ./my-model[/]
    """
    from awqbench.presets import audit_spec

    raise typer.Exit(_measured(_measure(audit_spec(preset, checkpoint, reference, engine), out, as_json)))


@app.command()
def report(path: RunPath) -> None:
    """Write report.html, report.md, junit.xml and eval_results.yaml anew from a run's record.

    Example: [bold]awqbench report runs/first[/]
    """
    from awqbench.report import render

    for written in render(path):
        print(written)


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="A quantized checkpoint's folder.")],
    as_json: Json = False,
) -> None:
    """Say what is in a quantized checkpoint: bits, groups, sizes, recipe, the linears that lost most.

    Example: [bold]awqbench inspect ./my-model-awq[/]
    """
    from awqbench.formats.summary import inspect_checkpoint
    from awqbench.printing import print_checkpoint

    found = inspect_checkpoint(checkpoint)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_checkpoint(found)


app.command()(export)
app.command()(card)
app.add_typer(environments, name="env")
app.add_typer(cache, name="cache")
app.add_typer(policies, name="policies")
app.add_typer(kernels, name="kernels")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what this machine has and what is missing, with the command that mends it.

    Example: [bold]awqbench doctor[/]
    """
    from dataclasses import asdict

    from awqbench.doctor import diagnose

    checks = diagnose()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
        return
    marks = {"ok": "ok     ", "warn": "note   ", "missing": "MISSING"}
    for check in checks:
        print(f"{marks[check.status]}  {check.name}: {check.message}")
        if check.hint:
            print(f"         {check.hint}")


def _confirmed(path: Path, policy: str | None = None) -> Any:
    """Measure a run's failures again, with progress on standard error."""
    from rich.console import Console

    from awqbench.confirmation import confirm
    from awqbench.watch import Display

    with Display(Console(stderr=True)) as display:
        return confirm(path, policy, watcher=display)


def _measure(spec: Any, out: Path, as_json: bool, confirm: bool = False) -> Any:
    """Run a spec with its progress on standard error and its result on standard output."""
    from rich.console import Console

    from awqbench.api import run as run_spec
    from awqbench.printing import print_run
    from awqbench.watch import Display

    with Display(Console(stderr=True)) as display:
        done = run_spec(spec, out, watcher=display)
    if confirm and done.verdict and done.verdict.overall == "fail":
        done = _confirmed(out)
    if as_json:
        print(json.dumps(_summary(done), indent=2))
    else:
        print_run(done)
    return done


def _measured(done: Any) -> ExitCode:
    """Whether every cell yielded figures."""
    failed = any(cell.result.status == "failed" for cell in done.cells)
    return ExitCode.MEASUREMENT_FAILED if failed else ExitCode.DONE


def _summary(done: Any) -> dict[str, Any]:
    """What a script wants of a run, in JSON's own values: none for what is no number."""

    def plain(model: Any) -> dict[str, Any]:
        return json.loads(model.model_dump_json(exclude={"detail"}))  # type: ignore[no-any-return]

    return {
        "run": str(done.path),
        "report": str(done.path / "report.html"),
        "verdict": plain(done.verdict) if done.verdict else None,
        "cells": [
            {"backend": c.result.backend, "suite": c.result.suite, "status": c.result.status, "reason": c.result.reason}
            for c in done.cells
        ],
        "parity": [plain(row) for row in done.comparison.parity] if done.comparison else [],
        "metrics": [
            {"backend": c.result.backend, "suite": c.result.suite, **plain(metric)}
            for c in done.cells
            for metric in c.result.metrics
        ],
    }


def _fail(message: str, code: int) -> None:
    print(f"awqbench: {message}", file=sys.stderr)
    sys.exit(code)
