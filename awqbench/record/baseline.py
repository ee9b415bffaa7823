"""A run's figures and items as one JSON file: small enough to commit, enough to gate a later run against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from awqbench.errors import UserError
from awqbench.record.files import write_atomic
from awqbench.record.reader import Cell, Run, load_run
from awqbench.record.schema import SCHEMA_VERSION, CellResult

# What pairing needs; predictions and token counts stay in the run.
_COLUMNS = ["metric", "item_id", "cluster", "score", "correct"]


def write_baseline(run: Run, path: Path) -> int:
    """Write the candidates' cells that are comparable across machines; returns how many items.

    Latency and memory are left out: they belong to the machine that measured them. Raises UserError for a run that is
    unfinished, whose missing cells would be held against another run's reference without a word, or has no candidate.
    """
    _refuse_unfinished(run)
    cells = [
        cell
        for cell in run.cells
        if cell.result.status == "ok" and cell.result.role in {"candidate", "control"} and cell.result.kind != "latency"
    ]
    if not cells:
        raise UserError(f"{run.path} holds no finished cell of a candidate: nothing to keep as a baseline")
    data = {
        "schema_version": SCHEMA_VERSION,
        "awqbench_version": run.manifest.awqbench_version,
        "created": run.manifest.created,
        "model": {k: run.manifest.model.get(k) for k in ("label", "hash")},
        "data": run.manifest.data,
        "cells": [
            {
                "result": cell.result.model_dump(
                    include={"backend", "suite", "kind", "role", "key", "status", "metrics", "unmeasured"}
                ),
                "items": {name: _plain(cell.items, name) for name in _columns(cell.items)},
            }
            for cell in cells
        ],
    }
    write_atomic(path, json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
    return sum(len(cell.items) for cell in cells)


@dataclass
class Baseline:
    """What an earlier run measured, the hashes of the data it was measured on, its reference model and its machine."""

    cells: list[Cell]
    data: dict[str, str]
    model: dict[str, Any]
    hardware: dict[str, Any] | None = None  # None: a file, which holds nothing that belongs to a machine


def read_baseline(path: Path) -> Baseline:
    """A file written by `write_baseline`, or a whole run directory. Raises UserError for anything else."""
    if path.is_dir():
        run = load_run(path)
        _refuse_unfinished(run)
        return Baseline(run.cells, run.manifest.data, run.manifest.model, run.manifest.hardware)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["schema_version"]
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {version}; this awqbench reads up to {SCHEMA_VERSION}: upgrade it"
            )
        cells = [Cell(CellResult.model_validate(cell["result"]), _table(cell["items"])) for cell in data["cells"]]
        return Baseline(cells, data["data"], data["model"])
    except FileNotFoundError:
        raise UserError(
            f"no baseline at {path} (allowed: a run directory, or a file made by awqbench baseline)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} is no baseline: {str(error).splitlines()[0]}") from None


def _refuse_unfinished(run: Run) -> None:
    if run.manifest.finished is None:
        raise UserError(f"{run.path} is unfinished and no baseline: run it again, it resumes")


def _columns(items: pd.DataFrame) -> list[str]:
    return [name for name in items.columns if name in _COLUMNS or name.startswith("group_")]


def _plain(items: pd.DataFrame, name: str) -> list[object]:
    column = items[name]
    if name == "score":
        # All digits: of a rounding a limit of zero takes one in twenty for a loss, though the model is the same.
        return [None if pd.isna(value) else float(value) for value in column]
    return [None if pd.isna(value) else bool(value) if name == "correct" else str(value) for value in column]


def _table(columns: dict[str, list[object]]) -> pd.DataFrame:
    from awqbench.suites.base import item_table

    names = list(columns)
    return item_table([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])
