"""`awqbench kernels check`, `bench`, `record` and `table`: options in, rows and tables out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from awqbench.commands.options import Json
from awqbench.errors import BackendUnavailable, ExitCode, UserError

kernels = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Check and time the CUDA kernels on this machine's GPU."
)

BudgetSeconds = Annotated[
    float | None, typer.Option("--budget", metavar="SECONDS", min=1, help="Begin nothing new after so long.")
]
Variants = Annotated[
    str, typer.Option(help="Variants of our kernel beside the default: default (none), all, or names or numbers.")
]


@kernels.command()
def check(
    only: Annotated[
        str | None,
        typer.Option(
            help="Some checks, comma-separated: round-trip, one-hot, exact, accuracy, repeat, strides, sanitizer, ..."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small shapes alone.")] = False,
    variants: Variants = "all",
    sanitizer: Annotated[
        bool, typer.Option("--sanitizer/--no-sanitizer", help="compute-sanitizer's four tools at the end.")
    ] = True,
    budget: BudgetSeconds = None,
    out: Annotated[Path | None, typer.Option(help="Write every row to a JSON file, while it goes on.")] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu: the operator's reference.")] = "cuda",
    as_json: Json = False,
) -> None:
    """Hold the kernels against float64: every layout, shape, tail, group size and way of calling. Exit 1 on a failure.

    A check that fails, crashes or hangs is a row like any other and stops nothing.

    Example: [bold]awqbench kernels check --quick[/]
    """
    from awqbench.kernelbench.budget import Budget
    from awqbench.kernelbench.cases import all_cases
    from awqbench.kernelbench.check_command import check_rows, write_rows
    from awqbench.kernelbench.outcome import summary

    all_cases(quick, only)  # a wrong name is said before anything is built
    where = _device(device)
    rows = []
    kept = time.monotonic()
    for row in check_rows(where, only, quick, variants, sanitizer, Budget(budget)):
        rows.append(row)
        if row.status != "skip" and not as_json:
            print(row.line(), flush=True)
        if out is not None and time.monotonic() - kept > 2:  # not for each of a thousand rows
            write_rows(out, where, rows)
            kept = time.monotonic()
    if out is not None:
        write_rows(out, where, rows)
    found = summary(rows)
    if as_json:
        print(json.dumps({"summary": found, "rows": [row.__dict__ for row in rows]}, indent=2))
    else:
        print("; ".join(f"{count} {status}" for status, count in found.items() if isinstance(count, int)))
        for name in found["failing"]:
            print(f"FAILING {name}")
    if not any(row.status == "pass" for row in rows) and not found["failing"]:
        raise UserError("nothing was checked: the budget is too short, or every check was skipped")
    raise typer.Exit(ExitCode.GATE_FAILED if found["failing"] else ExitCode.DONE)


@kernels.command()
def bench(
    shapes: Annotated[
        str | None, typer.Option(help="Models (llama3-8b, llama3-70b, llama2-7b) or N x K such as 4096x4096.")
    ] = None,
    batches: Annotated[str | None, typer.Option(help="Numbers of input rows, comma-separated.")] = None,
    peers: Annotated[str, typer.Option(help="all, none, or names: cublas, marlin, machete, humming, ...")] = "all",
    variants: Variants = "default",
    group_size: Annotated[int, typer.Option(min=0, help="Weights that share a scale; 0: per channel.")] = 128,
    dtypes: Annotated[str, typer.Option(help="fp16, bf16 or both, comma-separated; the first is measured first.")] = (
        "fp16,bf16"
    ),
    modes: Annotated[str, typer.Option(help="back-to-back, isolated or both.")] = "back-to-back,isolated",
    runs: Annotated[int, typer.Option(min=1, help="Turns of each contender; a claim needs 3.")] = 3,
    budget: BudgetSeconds = None,
    out: Annotated[
        Path | None, typer.Option(help="The record to add to; by default kernels/results/DEVICE.json.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda; cpu shows that the benchmark works and measures nothing.")] = (
        "cuda"
    ),
    session: Annotated[str | None, typer.Option(help="Go on with a session of the record, by its id.")] = None,
    without: Annotated[str, typer.Option(help="Contenders to leave out, comma-separated.")] = "",
    as_json: Json = False,
) -> None:
    """Time the kernels and every installed peer in turns, in one process: microseconds, share of the floor, ratios.

    What is measured is saved at once: the end of the budget, Ctrl-C or a crash costs no earlier figure. Exit status 4
    where a kernel of ours gives a wrong result.

    Example: [bold]awqbench kernels bench --shapes llama3-8b --batches 1,16 --budget 300[/]
    """
    from awqbench.kernelbench.bench_command import bench_session
    from awqbench.kernelbench.bench_options import BenchOptions

    options = BenchOptions(
        shapes, batches, peers, variants, group_size, dtypes, modes, runs, budget, out, session, without
    )
    finished = bench_session(options, _device(device), quiet=as_json)
    if as_json:
        print(json.dumps(finished, indent=2))
    raise typer.Exit(ExitCode.MEASUREMENT_FAILED if finished["bad"] else ExitCode.DONE)


@kernels.command()
def record(
    measured: Annotated[
        Path, typer.Argument(help="A file that [bold]kernels bench --out[/] wrote, here or elsewhere.")
    ],
    results: Annotated[Path | None, typer.Option(help="The folder of records; by default kernels/results.")] = None,
) -> None:
    """Put the sessions of a file among the records: kernels/results/DEVICE.json. Doing it again changes nothing.

    Example: [bold]awqbench kernels record runs/gpu/results.json[/]
    """
    from awqbench.kernelbench.machine import slug
    from awqbench.kernelbench.results import load, save
    from awqbench.resources import content

    found = load(measured)
    if found.device == "CPU":
        raise UserError(f"{measured} holds times of a CPU, which are no measurements")
    path = (results or content("kernels") / "results") / f"{slug(found.device)}.json"
    for session in found.sessions:
        save(path, session)
    print(f"wrote {path}: {len(found.sessions)} session{'s' if len(found.sessions) != 1 else ''}")


@kernels.command()
def table(
    results: Annotated[Path | None, typer.Option(help="The folder of records; by default kernels/results.")] = None,
    into: Annotated[Path | None, typer.Option(help="Put it between the markers of this document.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every layer, batch size, dtype and mode.")] = False,
) -> None:
    """Show what was measured as Markdown, generated from the records alone.

    Example: [bold]awqbench kernels table --into README.md[/]
    """
    from awqbench.kernelbench.table import load_all, put, render
    from awqbench.resources import content

    text = render(load_all(results or content("kernels") / "results"), full)
    if into is None:
        print(text)
        return
    into.write_text(put(into.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(f"wrote {into}", file=sys.stderr)


def _device(name: str) -> Any:
    """A torch device, the current one from here on; BackendUnavailable where there is no GPU."""
    import torch

    if name == "cpu":
        return torch.device("cpu")
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise UserError(f"unknown device {name!r} (allowed: cuda, cuda:N, cpu)")
    if not torch.cuda.is_available():
        build = "this torch has no CUDA" if torch.version.cuda is None else "torch finds none"
        raise BackendUnavailable(f"no GPU: {build} (torch {torch.__version__}); the kernels need an NVIDIA GPU")
    if not colon:
        return torch.device("cuda")
    if int(number) >= (count := torch.cuda.device_count()):
        raise UserError(f"no device {name!r} (allowed: cuda:0 to cuda:{count - 1})")
    device = torch.device("cuda", int(number))
    torch.cuda.set_device(device)  # streams, graphs and events are of the current device
    return device
