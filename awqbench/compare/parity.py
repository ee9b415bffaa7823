"""Which engines say of the unquantized model what the reference says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from awqbench.compare.cell import Cell
from awqbench.record.schema import Metric, Parity
from awqbench.spec import ParitySpec


def parity_rows(cells: Sequence[Cell], owners: Mapping[str, str], bounds: ParitySpec) -> list[Parity]:
    """One row per engine that is not the reference's, by the backend whose parity cell speaks for it.

    `owners` maps each such backend to that one (`awqbench.engines.parity_owners`).
    """
    found = {cell.result.backend: cell for cell in cells}
    rows = []
    for owner in dict.fromkeys(owners.values()):
        served = [name for name, other in owners.items() if other == owner]
        cell = found.get(owner)
        rows.append(_row(owner, served, cell, bounds))
    return rows


def parity_notes(rows: Sequence[Parity]) -> list[str]:
    """A line for each engine whose differences must not be read as quantization's, or that reads text otherwise."""
    notes = []
    for row in rows:
        names = ", ".join(row.backends)
        if row.status != "within":
            notes.append(f"{names}: engine parity {row.status}: {row.reason}")
        notes += [f"{names}: {warning}" for warning in row.warnings]
    return notes


def _row(owner: str, served: list[str], cell: Cell | None, bounds: ParitySpec) -> Parity:
    engine = cell.result.engine if cell else {}
    row = Parity(
        backend=owner,
        backends=served,
        engine=str(engine.get("engine") or owner),
        engine_version=engine.get("engine_version"),
        dtype=engine.get("dtype"),
        status="unmeasured",
        reason=(cell.result.reason if cell else None) or "no parity cell",
    )
    if cell is None or not cell.ok:
        return row
    metrics = cell.result.metrics
    kl, decode = _ending(metrics, "/prefill/kl"), _ending(metrics, "/decode/kl")
    bound = next((m for m in metrics if m.id.endswith("-lower-bound")), None)
    disagreement = _ending(metrics, "/prefill/top1-disagreement") or _ending(metrics, "/decode/top1-disagreement")
    main = kl or decode or bound or disagreement
    row = row.model_copy(
        update={
            "kl": kl.value if kl else bound.value if bound else None,
            "kl_decode": decode.value if decode else None,
            "kl_is_lower_bound": kl is None and bound is not None,
            "disagreement": disagreement.value if disagreement else None,
            "mean_logprob_error": _value(metrics, "/prefill/logprob-error"),
            "same_tokens": _value(metrics, "parity/same-tokens"),
            "same_bos": None if (bos := _value(metrics, "parity/same-bos")) is None else bos == 1.0,
            "positions": int(main.detail.get("positions", 0)) if main else 0,
        }
    )
    problems = _problems(row, bounds)
    return row.model_copy(
        update={
            "status": "outside" if problems else "within",
            "reason": "; ".join(problems) or "it agrees with the reference on unquantized weights",
            "warnings": _warnings(row),
        }
    )


def _problems(row: Parity, bounds: ParitySpec) -> list[str]:
    """What is out of bounds, in words."""
    found = []
    largest = max((kl for kl in (row.kl, row.kl_decode) if kl is not None), default=None)
    if largest is not None and largest > bounds.max_kl:
        least = "at least " if row.kl_is_lower_bound else ""
        found.append(f"mean KL is {least}{largest:.4g} nats (bound {bounds.max_kl:g})")
    if row.mean_logprob_error is not None and row.mean_logprob_error > _error_bound(bounds):
        found.append(
            f"log-probabilities are off by {row.mean_logprob_error:.4g} nats (bound {_error_bound(bounds):.3g})"
        )
    if row.disagreement is not None and row.disagreement > bounds.max_disagreement:
        found.append(f"another top token at {row.disagreement:.1%} of positions (bound {bounds.max_disagreement:.0%})")
    return found


def _warnings(row: Parity) -> list[str]:
    """How its tokenizer differs. Token ids cross to an engine, so this touches no figure, but whoever sends text."""
    found = []
    if row.same_tokens is not None and row.same_tokens < 1:
        found.append(
            f"its own tokenizer splits {1 - row.same_tokens:.1%} of the texts otherwise: sent text, not token ids, the "
            "engine sees other tokens than were measured"
        )
    if row.same_bos is False:
        found.append("its own tokenizer begins a text otherwise (BOS): sent text, it answers another prompt")
    return found


def _error_bound(bounds: ParitySpec) -> float:
    """The error of single log-probabilities that goes with a KL: KL is about half their mean square."""
    return float((2 * bounds.max_kl) ** 0.5)


def _ending(metrics: Sequence[Metric], end: str) -> Metric | None:
    return next((metric for metric in metrics if metric.id.endswith(end)), None)


def _value(metrics: Sequence[Metric], end: str) -> float | None:
    found = _ending(metrics, end)
    return found.value if found else None
