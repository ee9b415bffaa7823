"""How the checkpoints were made: the recipe, the bits really used, and the linears that carry the error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from awqbench.record.reader import Run
from awqbench.report.charts.bars import ranked
from awqbench.report.format import count, significant, value
from awqbench.report.sections.provenance import flat
from awqbench.report.select import roles

# The columns a linear's row may have, in the order they are shown, and their headings.
COLUMNS = {
    "name": "linear",
    "shape": "shape",
    "bits": "bits",
    "share": "share of all output error",
    "output_error": "relative output error",
    "output_error_rtn": "the same, round-to-nearest",
    "weight_error": "relative weight error",
    "weight_error_rtn": "the same, round-to-nearest",
    "block_error": "relative squared error of the block's output, this linear alone rounded",
    "tokens": "calibration tokens",
}
MIXED_COLUMNS = {
    "name": "linear",
    "block_error": "relative squared error of the block's output, if rounded",
    "share": "share of the sum of these errors",
    "added_bytes": "cost",
}


@dataclass(frozen=True)
class QuantizationView:
    """One backend's checkpoint. `linears` are the quantized ones with the largest errors; `mixed` those that got more
    bits; `unseen` those that no calibration token reached."""

    backend: str
    recipe: dict[str, str]
    facts: dict[str, str]
    columns: list[str]
    linears: list[dict[str, Any]]
    total: int
    chart: Markup | None
    warnings: list[str]
    kept: list[str]
    unseen: list[str]
    unscaled: list[str]
    mixed: list[dict[str, Any]]
    mixed_summary: str

    @property
    def headings(self) -> dict[str, str]:
        """Column headings by key."""
        return COLUMNS

    @property
    def mixed_headings(self) -> dict[str, str]:
        """Column headings of the mixed-precision table by key."""
        return MIXED_COLUMNS


def quantization(run: Run, most: int = 15) -> list[QuantizationView]:
    """Views of what each quantize.json holds; the `most` linears with the largest share of the error. A checkpoint of a
    backend that an earlier spec had is none of the run's."""
    there = roles(run)
    return [_view(backend, data, most) for backend, data in run.quantization.items() if backend in there]


def _view(backend: str, data: dict[str, Any], most: int) -> QuantizationView:
    rows = [row for row in data.get("linears") or [] if isinstance(row, dict)]
    mixed = data.get("mixed") or {}
    raised = {row["name"] for row in mixed.get("linears") or []}
    # The errors of linears that got more bits are those they would have had: they stand in a table of their own.
    linears = [row for row in rows if row.get("name") not in raised]
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in linears)]
    shown = sorted(linears, key=lambda row: -(row.get("share") or 0.0))[:most]
    shares = {str(row["name"]): float(row["share"]) for row in shown if row.get("share") is not None and "name" in row}
    title = f"Linears of {backend} with the largest share of the output error"
    return QuantizationView(
        backend=backend,
        recipe=_recipe(data),
        facts=_facts(data, linears, mixed),
        columns=columns,
        linears=shown,
        total=len(linears),
        chart=ranked(shares, f"quantization-{backend}", title) if shares else None,
        warnings=[str(line) for line in data.get("warnings") or []],
        kept=[str(name) for name in data.get("kept") or []],
        unseen=[str(row["name"]) for row in rows if row.get("tokens") == 0] if data.get("calibration") else [],
        unscaled=[_unscaled(group) for group in data.get("groups") or [] if group.get("reason")],
        mixed=list(mixed.get("linears") or []),
        mixed_summary=_bought(mixed, len(rows)) if mixed else "",
    )


def _facts(data: dict[str, Any], linears: list[dict[str, Any]], mixed: dict[str, Any]) -> dict[str, str]:
    """What came of the recipe, in one line each."""
    bits = Counter(f"in {row['bits']} bits" for row in linears if "bits" in row)
    if mixed:
        bits[f"in {mixed['keep_bits']} bits"] += len(mixed["linears"])
    if data.get("kept"):
        bits["kept as they were"] += len(data["kept"])
    statuses = Counter(str(group["status"]) for group in data.get("groups") or [] if group.get("status"))
    tokens = [row["tokens"] for row in linears if row.get("tokens") is not None]
    found = {
        "linears": _listed(bits),
        "scale groups": _listed(statuses),
        "fewest calibration tokens of a linear": count(min(tokens)) if tokens and data.get("calibration") else "",
    }
    return {name: text for name, text in found.items() if text}


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count(number)} {what}" for what, number in counts.most_common())


def _bought(mixed: dict[str, Any], total: int) -> str:
    before, after = (significant(mixed[key], 4) for key in ("bits_per_weight_before", "bits_per_weight"))
    removed = value(mixed["error_removed"], "share")
    return (
        f"{mixed['keep_bits']} bits for {count(len(mixed['linears']))} of {count(total)} linears: {after} instead of"
        f" {before} bits per weight, scales included, remove {removed} of the sum of the errors that each linear alone"
        " causes in its block"
    )


def _recipe(data: dict[str, Any]) -> dict[str, str]:
    recipe = dict(data.get("recipe") or {})
    # What the method does not look at would read as if it had been used.
    method = str(recipe.get("method"))
    for part, keys in (("awq", ("clip", "search")), ("gptq", ("damping",))):
        for key in keys if part not in method else ():
            recipe.pop(key, None)
    calibration = {f"calibration {key}": value for key, value in (data.get("calibration") or {}).items()}
    # A whole hash fills a line and tells a reader nothing that its start does not.
    return {key: f"{text[:12]}…" if len(text) == 64 else text for key, text in flat({**recipe, **calibration}).items()}


def _unscaled(group: dict[str, Any]) -> str:
    return f"{', '.join(map(str, group.get('linears') or group.get('names') or []))}: {group['reason']}"
