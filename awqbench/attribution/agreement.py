"""Do cheaper rankings agree? Spearman correlations over linears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from awqbench.attribution.recovery import rank_correlation
from awqbench.record.attribution import Entry

# What quantize.json says of each linear; see docs/quantization.md.
ERRORS = ("output_mse", "output_error", "weight_error", "block_error")


def agreement(linears: Sequence[Entry], recorded: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """`estimate/measured`, and for each error that the quantizer recorded `<error>/estimate` and `<error>/measured`.

    Over quantized linears: all of them for estimates, those put back alone for measurements.
    """
    quantized = [row for row in linears if row.bits is not None]
    tested = [row for row in quantized if row.measured is not None]
    found = {
        "estimate/measured": rank_correlation(
            [row.estimate.value for row in tested], [_measured(row) for row in tested]
        )
    }
    by_name = {row["name"]: row for row in recorded}
    for error in ERRORS:
        known = {name: float(row[error]) for name, row in by_name.items() if isinstance(row.get(error), int | float)}
        for what, rows in (("estimate", quantized), ("measured", tested)):
            fitting = [row for row in rows if row.name in known]
            values = [row.estimate.value if what == "estimate" else _measured(row) for row in fitting]
            if fitting:
                found[f"{error}/{what}"] = rank_correlation([known[row.name] for row in fitting], values)
    return found


def _measured(row: Entry) -> float:
    assert row.measured is not None
    return row.measured.value
