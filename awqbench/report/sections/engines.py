"""What computed the figures: each backend's engine, as its worker described itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from awqbench.record.reader import Run
from awqbench.report import select


@dataclass
class EngineRow:
    """One backend's engine in words; `not_measured` holds what it cannot tell, by suite."""

    backend: str
    engine: str = "never loaded"
    kernel: str = ""
    dtype: str = ""
    device: str = ""
    runtime: str = ""
    weight_bytes: int | None = None
    not_measured: list[str] = field(default_factory=list)


def engines(run: Run) -> list[EngineRow]:
    """A row per backend in display order; facts that differ between its cells (a compute type) are joined."""
    rows = {name: EngineRow(name) for name in select.roles(run)}
    told: dict[str, dict[str, list[str]]] = {name: {} for name in rows}
    for cell in select.ordered(run.cells):
        result = cell.result
        row = rows[result.backend]
        if result.status in {"skipped", "not_applicable"}:
            row.not_measured.append(f"{result.suite}: {result.status.replace('_', ' ')}")  # the reason stands above
        row.not_measured += [f"{result.suite}: {note}" for note in result.notes]
        facts = result.engine
        if not facts:
            continue
        version = facts.get("engine_version") or facts.get("torch") or ""
        words = {
            "engine": f"{facts.get('engine', 'transformers')} {version}".strip(),
            **{key: str(facts[key]) for key in ("kernel", "dtype", "device", "runtime") if facts.get(key)},
        }
        for key, word in words.items():
            told[result.backend].setdefault(key, []).append(word)
        row.weight_bytes = facts.get("weight_bytes") or row.weight_bytes
    for name, row in rows.items():
        for key, found in told[name].items():
            setattr(row, key, ", ".join(select.unique(found)))
        row.not_measured = select.unique(row.not_measured)
    return list(rows.values())
