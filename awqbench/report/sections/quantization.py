"""How the checkpoints were made: the recipe, and the linears that carry the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from awqbench.record.reader import Run
from awqbench.report.charts.bars import ranked
from awqbench.report.sections.provenance import flat

# The columns a linear's row may have, in the order they are shown, and their headings.
COLUMNS = {
    "name": "linear",
    "shape": "shape",
    "share": "share of all output error",
    "output_error": "relative output error",
    "output_error_rtn": "the same, round-to-nearest",
    "weight_error": "relative weight error",
    "weight_error_rtn": "the same, round-to-nearest",
    "tokens": "calibration tokens",
}


@dataclass(frozen=True)
class QuantizationView:
    """One backend's checkpoint."""

    backend: str
    recipe: dict[str, str]
    columns: list[str]
    linears: list[dict[str, Any]]
    total: int
    chart: Markup | None
    warnings: list[str]
    kept: list[str]
    unscaled: list[str]

    @property
    def headings(self) -> dict[str, str]:
        """Column headings by key."""
        return COLUMNS


def quantization(run: Run, most: int = 15) -> list[QuantizationView]:
    """Views of what each quantize.json holds; the `most` linears with the largest share of the error."""
    return [_view(backend, data, most) for backend, data in run.quantization.items()]


def _view(backend: str, data: dict[str, Any], most: int) -> QuantizationView:
    linears = [row for row in data.get("linears") or [] if isinstance(row, dict)]
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in linears)]
    shown = sorted(linears, key=lambda row: -(row.get("share") or 0.0))[:most]
    shares = {str(row["name"]): float(row["share"]) for row in shown if row.get("share") is not None and "name" in row}
    title = f"Linears of {backend} with the largest share of the output error"
    return QuantizationView(
        backend=backend,
        recipe=_recipe(data),
        columns=columns,
        linears=shown,
        total=len(linears),
        chart=ranked(shares, f"quantization-{backend}", title) if shares else None,
        warnings=[str(line) for line in data.get("warnings") or []],
        kept=[str(name) for name in data.get("kept") or []],
        unscaled=[_unscaled(group) for group in data.get("groups") or [] if group.get("reason")],
    )


def _recipe(data: dict[str, Any]) -> dict[str, str]:
    calibration = {f"calibration {key}": value for key, value in (data.get("calibration") or {}).items()}
    # A whole hash fills a line and tells a reader nothing that its start does not.
    return {
        key: f"{text[:12]}…" if len(text) == 64 else text
        for key, text in flat({**(data.get("recipe") or {}), **calibration}).items()
    }


def _unscaled(group: dict[str, Any]) -> str:
    return f"{', '.join(map(str, group.get('linears') or group.get('names') or []))}: {group['reason']}"
