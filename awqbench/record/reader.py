"""Reading a run directory back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from awqbench.errors import UserError
from awqbench.record.attribution import Attribution
from awqbench.record.layout import RunDirectory
from awqbench.record.schema import SCHEMA_VERSION, CellResult, Comparison, Manifest, Verdict

Record = TypeVar("Record", bound=BaseModel)


@dataclass
class Cell:
    """One finished cell: its result, its rows, its telemetry."""

    result: CellResult
    items: pd.DataFrame
    telemetry: pd.DataFrame | None = None


@dataclass
class Run:
    """A run directory in memory."""

    path: Path
    manifest: Manifest
    cells: list[Cell] = field(default_factory=list)
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    quantization: dict[str, dict[str, Any]] = field(default_factory=dict)
    parity: list[Cell] = field(default_factory=list)
    attributions: dict[str, Attribution] = field(default_factory=dict)

    @property
    def measured(self) -> str:
        """When its newest cell was begun, ISO. A run directory may be measured again long after it was made, and a run
        that finds all cells done measures nothing."""
        started = max((cell.result.started for cell in self.cells), default="")
        return started or self.manifest.finished or self.manifest.created

    @property
    def metrics(self) -> pd.DataFrame:
        """A row per metric and cell: backend, suite, id, value, interval, unit, n."""
        return pd.DataFrame(
            [
                {"backend": cell.result.backend, "suite": cell.result.suite, **metric.model_dump(exclude={"detail"})}
                for cell in self.cells
                for metric in cell.result.metrics
            ]
        )

    @property
    def items(self) -> pd.DataFrame:
        """All item rows, with their backend and suite."""
        frames = [
            cell.items.assign(backend=cell.result.backend, suite=cell.result.suite)
            for cell in self.cells
            if len(cell.items)
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def load_run(path: str | Path) -> Run:
    """Read a run directory; cells come sorted by backend and suite.

    Raises UserError when it is none, is newer than this awqbench, or holds a damaged file (named).
    """
    layout = RunDirectory(Path(path))
    if not layout.manifest.is_file():
        raise UserError(f"{path} is no run directory: it has no manifest.json")
    run = Run(layout.root, read_record(layout.manifest, Manifest))
    for result in sorted(layout.cells.glob("*/*/result.json")):
        run.cells.append(read_cell(result.parent))
    for result in sorted(layout.parity.glob("*/result.json")):
        run.parity.append(read_cell(result.parent))
    if layout.comparison.is_file():
        run.comparison = read_record(layout.comparison, Comparison)
    if layout.verdict.is_file():
        run.verdict = read_record(layout.verdict, Verdict)
    backends = run.manifest.spec.get("backends", {})
    for recipe in sorted(layout.root.glob("checkpoints/*/quantize.json")):
        # One that an earlier spec made, and this one does not run, says nothing of the figures.
        if (own := backends.get(recipe.parent.name)) and not own.get("checkpoint"):
            run.quantization[recipe.parent.name] = _read_json(recipe)
    for attribution in sorted(layout.attributions.glob("*.json")):
        run.attributions[attribution.stem] = read_record(attribution, Attribution)
    return run


def read_cell(folder: Path) -> Cell:
    """One cell's folder."""
    result = read_record(folder / "result.json", CellResult)
    return Cell(result, _read_table(folder / "items.parquet"), _optional(folder / "telemetry.parquet"))


def read_record(path: Path, model: type[Record]) -> Record:
    """A JSON record, checked against its schema and version."""
    data = _read_json(path)
    version = data.get("schema_version", 0)
    if version > SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}; this awqbench reads up to {SCHEMA_VERSION}: upgrade it")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UserError(f"{path} is damaged: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return data


def _read_table(path: Path) -> pd.DataFrame:
    from awqbench.suites.base import item_table

    if not path.is_file():
        return item_table([])
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _optional(path: Path) -> pd.DataFrame | None:
    return _read_table(path) if path.is_file() else None
