"""`awqbench kernels check` between parsing and printing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from awqbench.kernelbench import machine, supervise
from awqbench.kernelbench.budget import Budget
from awqbench.kernelbench.cases import SANITIZER
from awqbench.kernelbench.ours import our_kernels
from awqbench.kernelbench.outcome import Row, summary
from awqbench.kernelbench.runner import items, run_here
from awqbench.kernelbench.sanitizer import sanitize
from awqbench.record.files import write_atomic


def check_rows(
    device: torch.device, only: str | None, quick: bool, variants: str, sanitizer: bool, budget: Budget
) -> Iterator[Row]:
    """All rows of a check. On a GPU in a process of their own, which may die; what the budget left out is a row too.

    `only` may name `sanitizer`, which otherwise comes last, where it is wanted."""
    kernels = our_kernels(device, variants)  # builds them, and says what hinders that, before any process starts
    work = items(kernels, quick=quick, only=only)
    sanitizer = sanitizer if only is None else SANITIZER in only
    done = 0
    rows: Iterable[Row]
    if not work:
        rows = ()
    elif device.type == "cuda":
        options = ["--device", str(device), "--variants", variants]
        options += ["--quick"] if quick else []
        options += ["--only", only] if only else []
        rows = supervise.supervise(options, budget)
    else:
        rows = run_here(work, device, budget)
    for row in rows:
        done += 1
        yield row
    if done < len(work):
        yield Row(
            "all", "budget", f"{len(work) - done} of {len(work)} checks", "skip", "not reached in the budget", 0.0
        )
    if sanitizer and device.type == "cuda":
        yield from sanitize(budget)


def write_rows(path: Path, device: torch.device, rows: Sequence[Row]) -> None:
    """The rows so far with what they ran on, as JSON."""
    record = {
        "device": machine.device_name(device),
        "date": machine.now(),
        "versions": machine.versions(),
        "summary": summary(rows),
        "rows": [asdict(row) for row in rows],
    }
    write_atomic(path, json.dumps(record, indent=1) + "\n")
