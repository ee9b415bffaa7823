"""Parts and their contributions as the rows of the record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from awqbench.attribution.parts import Part
from awqbench.attribution.recovery import Sample
from awqbench.record.attribution import Amount, Entry
from awqbench.stats.inputs import Floats


def entries(
    sets: Mapping[str, Sequence[Part]], contributions: Mapping[str, Floats], sample: Sample, damage: Amount
) -> list[Entry]:
    """A row per set of parts, the largest estimate first; with shares where there is `damage` to share.

    `contributions`: arrays (units,) by part.
    """
    every = [part for parts in sets.values() for part in parts]
    total = sum(sample.amount(contributions[part.name]).value for part in every)
    shared = sample.shown(damage) and total != 0
    stored = sum(part.bytes for part in every)
    rows = []
    for name, parts in sets.items():
        first = parts[0]
        single = len(parts) == 1 and first.name == name
        estimate = sample.amount(sum(contributions[part.name] for part in parts))  # type: ignore[arg-type]
        size = sum(part.bytes for part in parts)
        rows.append(
            Entry(
                name=name,
                kind=first.kind if single else None,
                block=first.block if single else None,
                shape=list(first.shape) if single else None,
                linears=[] if single else [part.name for part in parts],
                bits=first.bits if len({part.bits for part in parts}) == 1 else None,
                bytes=size,
                weight_share=size / stored,
                added_bytes=sum(part.added_bytes for part in parts),
                estimate=estimate,
                share=estimate.value / total if shared else None,
            )
        )
    return sorted(rows, key=lambda row: -row.estimate.value)


def keep_patterns(by: str, rows: Sequence[Entry]) -> list[str]:
    """What `quantize --keep` takes to keep the sets that were shown to recover something, the best estimate first."""
    shown = [row for row in rows if row.measured is not None and row.measured.ci_low > 0 and row.added_bytes]
    if by == "kind":
        return [row.name for row in shown]
    if by == "block":
        return [_common(row.linears) for row in shown]
    return [row.name for row in shown]


def _common(names: Sequence[str]) -> str:
    """An expression for everything below the block that the names share."""
    block = re.match(r".*?\.\d+(?=\.)", names[0])
    return f"re:{re.escape(block[0])}\\..*" if block else names[0]
