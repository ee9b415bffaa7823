"""What a run measured of a checkpoint, put into the checkpoint's model card."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from awqbench.errors import UserError, unknown_choice
from awqbench.formats.card import CARD, model_card, table, with_results
from awqbench.formats.shards import weights_hash
from awqbench.formats.summary import read_recipe
from awqbench.record.reader import Run, load_run
from awqbench.record.schema import CellResult, Difference, Metric
from awqbench.report import format as fmt

_VERDICTS = {
    "pass": "**It may ship**: all gates pass.",
    "fail": "**It may not ship**: a gate fails.",
    "inconclusive": "**Undecided**: a gate neither passes nor fails.",
}


def add_results(checkpoint: Path, run: str | Path | Run, backend: str) -> Path:
    """Put the figures that a run directory holds of `backend` into the card of `checkpoint`; returns the card's path.

    Doing it again replaces them; the rest of the card stays as it is. A checkpoint without a card gets one. Raises
    UserError when the run has no such backend, measured nothing of it, is unfinished, or can be seen to have measured
    another checkpoint.
    """
    checkpoint = Path(checkpoint)
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"no checkpoint: {checkpoint / 'config.json'} is missing")
    found = run if isinstance(run, Run) else load_run(run)
    results = results_markdown(found, backend)
    recipe = read_recipe(checkpoint)
    _refuse_another(checkpoint, recipe, found, backend)
    path = checkpoint / CARD
    if path.is_file():
        text = with_results(path.read_text(encoding="utf-8"), results)
    elif recipe is not None:
        config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        text = model_card(recipe, config, results)
    else:
        text = with_results(f"# {checkpoint.resolve().name}", results)
    _replace(path, text)
    return path


def results_markdown(run: Run, backend: str) -> str:
    """The verdict on `backend` and a table of its metrics with their intervals and the reference's values."""
    if run.manifest.finished is None:  # its comparison and its verdict may be of earlier cells
        raise UserError(f"{run.path} is unfinished: run it again, it resumes")
    cells = [cell.result for cell in run.cells if cell.result.backend == backend]
    if not cells:
        raise unknown_choice("backend", backend, {cell.result.backend for cell in run.cells})
    rows = [_row(run, cell, metric) for cell in cells for metric in cell.metrics if metric.value is not None]
    if not rows:
        raise UserError(f"the run {run.path} measured nothing of {backend}")
    model = run.manifest.model.get("label") or run.manifest.model.get("source")
    when = (max(cell.started for cell in cells) or run.measured)[:10]
    lines = [
        f"Backend `{backend}` against {model}, measured on {when} with awqbench {run.manifest.awqbench_version}.",
        table(("metric", "value", "95 % interval", "n", "reference", "change", "95 % interval of the change"), rows),
    ]
    verdict = run.verdict.candidates.get(backend) if run.verdict else None
    if verdict is not None:
        lines.insert(1, _VERDICTS[verdict])
    missing = [f"{cell.suite} ({cell.status}: {cell.reason})" for cell in cells if cell.status != "ok"]
    missing += [f"{cell.suite} ({why})" for cell in cells for why in dict.fromkeys(cell.unmeasured.values())]
    if missing:
        lines.append(f"Not measured: {'; '.join(missing)}.")
    return "\n\n".join(lines)


def _refuse_another(checkpoint: Path, recipe: dict[str, Any] | None, run: Run, backend: str) -> None:
    """Raise UserError where it can be seen that the run measured another checkpoint under this name."""
    made = run.quantization.get(backend)
    if made is not None and made != recipe:
        raise UserError(f"{backend} of {run.path} is another checkpoint than {checkpoint}: quantize.json differs")
    given = (run.manifest.spec.get("backends", {}).get(backend) or {}).get("checkpoint")
    if given and Path(given).is_dir() and weights_hash(Path(given)) != weights_hash(checkpoint):
        raise UserError(f"{backend} of {run.path} is {given}, another checkpoint than {checkpoint}")


def _row(run: Run, cell: CellResult, metric: Metric) -> tuple[str, ...]:
    paired = _difference(run, cell, metric)
    change = fmt.delta(paired.delta, paired.delta_unit) if paired else fmt.DASH
    interval = fmt.interval(paired.ci_low, paired.ci_high, paired.delta_unit) if paired else fmt.DASH
    reference = fmt.value(paired.baseline_value, metric.unit) if paired else fmt.DASH
    return (
        f"`{metric.id}`", fmt.value(metric.value, metric.unit), _interval(metric.ci_low, metric.ci_high, metric.unit),
        fmt.count(metric.n), reference, change, interval,
    )  # fmt: skip


def _difference(run: Run, cell: CellResult, metric: Metric) -> Difference | None:
    """The paired difference of a metric to the reference, if the run has one."""
    wanted = (cell.suite, metric.id, run.comparison.reference if run.comparison else None, cell.backend)
    for row in run.comparison.differences if run.comparison else []:
        if (row.suite, row.metric, row.baseline, row.candidate) == wanted:
            return row
    return None


def _interval(low: float | None, high: float | None, unit: str) -> str:
    return fmt.DASH if low is None or high is None else f"{fmt.value(low, unit)} to {fmt.value(high, unit)}"


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
