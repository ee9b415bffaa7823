"""`awqbench attribute`: which weights did the damage, and what keeping them would buy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from awqbench.commands.options import Json
from awqbench.errors import ExitCode

DAMAGE, RANKING, RUNNING = "Damage", "Ranking", "Running"

EXAMPLES = """Say which weights a checkpoint's damage comes from: estimated for all, measured for the first.

Half of the windows or items rank every linear at once, by gradients; on the other half the first are put back to full
precision, alone and together, and what comes back is measured, with 95 % intervals.

Examples. What of the KL divergence is whose, and what would keeping it cost:

    [bold]awqbench attribute ./my-model-awq --reference ./my-model --out attribution.json[/]

Who did the harm that one group suffers beyond the others:

    [bold]awqbench attribute ./my-model-awq --reference ./my-model --set counterfactual --attribute gender[/]

Of a run; its report then has a section about it:

    [bold]awqbench attribute runs/first --backend awq && awqbench report runs/first[/]
"""


def attribute(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT|RUN", help="A checkpoint's folder, or a run directory.")],
    reference: Annotated[
        str | None, typer.Option(help="What the checkpoint was made from: a folder, a packaged name or a hub id.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Of a run: whose checkpoint.")] = "awq",
    text: Annotated[
        str | None, typer.Option(rich_help_panel=DAMAGE, help="Text of the KL; of a run its own, else pydoc-topics.")
    ] = None,
    window: Annotated[int, typer.Option(rich_help_panel=DAMAGE, help="Tokens of a window.")] = 256,
    windows: Annotated[int, typer.Option(rich_help_panel=DAMAGE, help="Windows of each half.")] = 8,
    item_set: Annotated[
        str | None,
        typer.Option("--set", rich_help_panel=DAMAGE, help="Items of a fairness set instead of a text: bbq ..."),
    ] = None,
    items: Annotated[int, typer.Option(rich_help_panel=DAMAGE, help="Items of each half, about.")] = 60,
    attribute: Annotated[
        str | None, typer.Option(rich_help_panel=DAMAGE, help="Attribute of the group, such as gender.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(rich_help_panel=DAMAGE, help="Its harm beyond the others'; by default the worst hit.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DAMAGE,
            help="choice (-log of the right answer's probability among the answers; default) or nll (its own).",
        ),
    ] = None,
    by: Annotated[str, typer.Option(rich_help_panel=RANKING, help="Put back by linear, block or kind.")] = "linear",
    top: Annotated[int, typer.Option(rich_help_panel=RANKING, help="How many are put back and measured.")] = 10,
    points: Annotated[int, typer.Option(rich_help_panel=RANKING, help="Gradients on the way to full precision.")] = 3,
    max_minutes: Annotated[
        float | None, typer.Option(rich_help_panel=RUNNING, help="Put back fewer, so as to be done in this time.")
    ] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=RUNNING, help="Of the choice of items.")] = 0,
    device: Annotated[str, typer.Option(rich_help_panel=RUNNING, help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(rich_help_panel=RUNNING, help="CPU threads; default: all.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", rich_help_panel=RUNNING, help="Run the model's own code.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write the record, JSON; a run keeps it by itself.")] = None,
    as_json: Json = False,
) -> None:
    """The command; its help is `EXAMPLES`."""
    from awqbench.attribution.api import attribute as run_attribution
    from awqbench.attribution.printing import plan_line, print_attribution
    from awqbench.watch import block_progress
    from awqbench.worker.client import WorkerFailed

    half = f"about {items} items" if item_set else f"{windows} windows of {window} tokens"
    print(plan_line(half, points, top), file=sys.stderr)
    try:
        with block_progress("attribution", "tokens") as progress:
            found = run_attribution(
                path, reference, backend=backend, text=text, window=window, windows=windows, item_set=item_set,
                items=items, attribute=attribute, group=group, loss=loss, by=by, top=top, points=points,
                max_minutes=max_minutes, seed=seed, device=device, threads=threads,
                trust_remote_code=trust_remote_code, out=out, progress=progress,
            )  # fmt: skip
    except WorkerFailed as error:
        print(f"awqbench: {error}", file=sys.stderr)
        sys.exit(ExitCode.MEASUREMENT_FAILED)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        print_attribution(found)
