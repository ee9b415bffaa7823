"""`awqbench quantize`: options in, a checkpoint out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqbench.commands.options import Json
from awqbench.errors import ExitCode

RECIPE, CALIBRATION, MIXED, RUNNING = "Recipe", "Calibration", "Mixed precision", "Running"

EXAMPLES = """Quantize a model into a checkpoint that vLLM, transformers and awqbench load.

Examples. The best 4-bit quality, from 128 windows of 512 tokens:

    [bold]awqbench quantize ./model --out ./model-w4 --method awq+gptq --samples 128 --seq-len 512[/]

Calibrated on your own conversations, one {"messages": ...} a line:

    [bold]awqbench quantize ./model --out ./model-chat --calibration chats.jsonl --samples 128 --seq-len 512[/]

The twenty linears that suffer most stay in 16 bits:

    [bold]awqbench quantize ./model --out ./model-mixed --keep-worst 20 --format compressed-tensors[/]

What it would take, without doing it; then within 8 GB; then onwards after an interruption:

    [bold]awqbench quantize ./model --out ./model-w4 --dry-run[/]

    [bold]awqbench quantize ./model --out ./model-w4 --max-memory 8GB[/]

    [bold]awqbench quantize ./model --out ./model-w4 --max-memory 8GB --resume[/]
"""


def quantize(
    model: Annotated[str, typer.Argument(help="A folder, a packaged name (demo, tiny-random) or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint; must not exist.")],
    method: Annotated[
        str,
        typer.Option(
            rich_help_panel=RECIPE,
            help="rtn (round to nearest, the control), awq (activation-aware scales and clipping), gptq (error-"
            "compensated rounding) or awq+gptq (both).",
        ),
    ] = "awq",
    bits: Annotated[int, typer.Option(rich_help_panel=RECIPE, help="2, 3, 4 or 8.")] = 4,
    group_size: Annotated[
        int, typer.Option(rich_help_panel=RECIPE, help="Weights that share a scale, along the input; -1: per channel.")
    ] = 64,
    symmetric: Annotated[
        bool, typer.Option("--symmetric/--asymmetric", rich_help_panel=RECIPE, help="Without or with zero points.")
    ] = False,
    clip: Annotated[
        bool, typer.Option(rich_help_panel=RECIPE, help="Search for the best clipping of each group.")
    ] = True,
    search: Annotated[
        str,
        typer.Option(
            rich_help_panel=RECIPE,
            help="Judge of trial scales: gram (fast), or module (the paper's, slow).",
        ),
    ] = "gram",
    damping: Annotated[
        float, typer.Option(rich_help_panel=RECIPE, help="Of gptq: share of the mean energy added to each input.")
    ] = 0.03,
    grouped_queries: Annotated[
        bool,
        typer.Option(
            "--grouped-queries", rich_help_panel=RECIPE, help="Scale o_proj by way of values that several heads share."
        ),
    ] = False,
    layout: Annotated[
        str, typer.Option("--format", rich_help_panel=RECIPE, help="awq (AutoAWQ GEMM) or compressed-tensors.")
    ] = "awq",
    indivisible: Annotated[
        str, typer.Option(rich_help_panel=RECIPE, help="Linears that don't divide by the group size: error, or keep.")
    ] = "error",
    overrides: Annotated[
        Path | None, typer.Option(rich_help_panel=RECIPE, help="TOML file with scale groups for unusual models.")
    ] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=RECIPE, help="Seed of everything random.")] = 0,
    calibration: Annotated[
        str,
        typer.Option(
            rich_help_panel=CALIBRATION,
            help="A packaged text, a text or JSONL file, or hub:OWNER/NAME[:CONFIG][:SPLIT]; with a slice if wanted: "
            "my.txt[:50%].".replace("[", r"\["),
        ),
    ] = "gensim-wikipedia",
    samples: Annotated[
        int, typer.Option(rich_help_panel=CALIBRATION, help="Windows; of protocol documents, documents.")
    ] = 8,
    seq_len: Annotated[int, typer.Option(rich_help_panel=CALIBRATION, help="Tokens of a window.")] = 128,
    protocol: Annotated[
        str,
        typer.Option(
            rich_help_panel=CALIBRATION,
            help="stream: windows spread over the joined text; documents: AWQ's, shuffled whole documents of at most "
            "--seq-len tokens.",
        ),
    ] = "stream",
    text_field: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=CALIBRATION, help="Field of a record's text; else text, messages or conversations."
        ),
    ] = None,
    chat_template: Annotated[
        bool,
        typer.Option(
            "--chat-template", rich_help_panel=CALIBRATION, help="Render each document as one turn of a user."
        ),
    ] = False,
    keep_worst: Annotated[
        int, typer.Option(rich_help_panel=MIXED, help="Linears that quantization hurts most, kept in --keep-bits.")
    ] = 0,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=MIXED,
            help="A linear kept in --keep-bits by name, with those that read the same input: what its name ends in, or"
            " re:EXPRESSION. Repeatable; awqbench attribute says which are worth it.",
        ),
    ] = None,
    keep_bits: Annotated[int, typer.Option(rich_help_panel=MIXED, help="16 (full precision) or 8.")] = 16,
    bits_budget: Annotated[
        float | None, typer.Option(rich_help_panel=MIXED, help="Bits per weight, spent where they help most: 4.5.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(rich_help_panel=RUNNING, help="Refuse at once what would need more: 8GB, 500MiB.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(rich_help_panel=RUNNING, help="Processes that quantize blocks at once; each needs the memory."),
    ] = 1,
    scaled_only: Annotated[
        bool,
        typer.Option(
            "--scaled-only",
            rich_help_panel=RECIPE,
            help="Write the scaled model in full precision, for another quantizer to round (llama-quantize by way of"
            " awqbench export --type f16).",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=RUNNING, help="Go on with what was interrupted.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=RUNNING, help="Show blocks, memory and disk, and stop.")
    ] = False,
    device: Annotated[str, typer.Option(rich_help_panel=RUNNING, help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str, typer.Option(rich_help_panel=RUNNING, help="Compute type of the model: float32, bfloat16 or float16.")
    ] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", rich_help_panel=RUNNING, help="Run the model's own code.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", rich_help_panel=RUNNING, help="Read weights that are no safetensors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The command; its help is `EXAMPLES`."""
    from awqbench.api import quantize as quantize_model
    from awqbench.commands.needs import print_plan
    from awqbench.watch import block_progress
    from awqbench.worker.client import WorkerFailed

    options = {
        "method": method, "bits": bits, "group_size": group_size, "symmetric": symmetric, "clip": clip,
        "search": search, "damping": damping, "grouped_queries": grouped_queries,
        "format": layout, "indivisible": indivisible,
        "overrides": str(overrides) if overrides else None, "calibration": calibration, "samples": samples,
        "seq_len": seq_len, "protocol": protocol, "text_field": text_field, "chat_template": chat_template,
        "keep_worst": keep_worst, "keep": keep or [], "keep_bits": keep_bits,
        "bits_budget": bits_budget, "max_memory": max_memory, "workers": workers,
        "dtype": dtype, "allow_pickle": allow_pickle,
    }  # fmt: skip
    try:
        with block_progress(f"{method} w{bits} g{group_size}") as progress:
            made = quantize_model(
                model, out, seed=seed, resume=resume, dry_run=dry_run, scaled_only=scaled_only, device=device,
                trust_remote_code=trust_remote_code, progress=progress, **options,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("awqbench: interrupted; the same command with --resume goes on", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)  # not typer's: the general handler would say that the command itself resumes
    except WorkerFailed as error:
        kept = out.with_name(f"{out.name}.partial").exists()
        print(f"awqbench: {error}{'; --resume goes on with what is finished' if kept else ''}", file=sys.stderr)
        sys.exit(ExitCode.MEASUREMENT_FAILED)
    if as_json:
        print(json.dumps({"out": str(out), **made}, indent=2))
    elif dry_run:
        print_plan(made)
    else:
        for warning in made["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"wrote {out}; look at it: awqbench inspect {out}")
