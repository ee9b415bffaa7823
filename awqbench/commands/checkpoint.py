"""`awqbench export` and `awqbench card`: what becomes of a finished checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqbench.commands.options import Json
from awqbench.errors import unknown_choice

Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint's folder.")]


def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="The file to write; must not exist.")],
    to: Annotated[str, typer.Option(help="gguf, for llama.cpp.")] = "gguf",
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help="blocks: integer codes carried over into Q4_0, Q4_1 or Q8_0 blocks; f16: all in half precision "
            "(of a checkpoint made with quantize --scaled-only: what llama-quantize should start from); f32: all as it "
            "is; q8_0: all matrices rounded to 8 bits.",
        ),
    ] = "blocks",
    pre: Annotated[
        str | None, typer.Option(help="llama.cpp's name for how the tokenizer splits text, where it is not known.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the file; by default the folder's.")] = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint, whoever made it, as one file for another engine.

    Example: [bold]awqbench export ./my-model-awq --to gguf --out my-model.gguf[/]
    """
    from rich import filesize

    from awqbench.formats.gguf.export import export_gguf

    if to != "gguf":
        raise unknown_choice("target", to, ["gguf"])
    done = export_gguf(checkpoint, out, kind=kind, pre=pre, name=name)  # type: ignore[arg-type]  # it checks the kind
    if as_json:
        print(json.dumps({"out": str(out), **done}, indent=2))
        return
    for note in done["notes"]:
        print(f"note: {note}", file=sys.stderr)
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(done["types"].items()))
    print(f"wrote {out}: {filesize.decimal(done['bytes'])}; tensors: {types}")


def card(
    checkpoint: Checkpoint,
    run: Annotated[Path, typer.Option(help="The run directory that measured it.")],
    backend: Annotated[str, typer.Option(help="What the checkpoint is called in that run.")] = "awq",
) -> None:
    """Put a run's figures, with their intervals and the verdict, into a checkpoint's model card.

    Doing it again replaces them; the rest of the card stays as it is.

    Example: [bold]awqbench card ./my-model-awq --run runs/audit --backend checkpoint[/]
    """
    from awqbench.formats.card_results import add_results

    print(f"wrote {add_results(checkpoint, run, backend)}")
