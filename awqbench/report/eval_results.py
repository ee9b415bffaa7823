"""eval_results.yaml: the candidates' quality figures in the format of the Hugging Face hub's model repositories.

The hub's format has no field for uncertainty, so the interval and the count stand in `notes`.
https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from awqbench.record.reader import Run
from awqbench.record.schema import CellResult, Metric
from awqbench.report import format as fmt
from awqbench.report import select

_KINDS = ("perplexity", "tasks", "fairness")  # what says something of a model by itself, on any machine
_HEADER = """\
# Copy the entries of one model into .eval_results/ of its repository.
# A dataset id that starts with awqbench/ names this project's protocol, not a data set on the hub.
"""


def eval_results(run: Run) -> str:
    """A YAML list with an entry per quality metric of each candidate; empty when none was measured."""
    entries = [
        _entry(run, cell.result, metric)
        for cell in select.ordered(run.cells)
        if cell.result.role == "candidate" and cell.result.status == "ok" and cell.result.kind in _KINDS
        for metric in cell.result.metrics
        if metric.value is not None and metric.higher_is_better is not None
    ]
    body = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=120)
    return _HEADER + body


def _entry(run: Run, result: CellResult, metric: Metric) -> EvalResultEntry:
    uncertainty = f"n = {fmt.count(metric.n)}"
    if metric.ci_low is not None and metric.ci_high is not None:
        low, high = fmt.value(metric.ci_low, metric.unit), fmt.value(metric.ci_high, metric.unit)
        uncertainty = f"{metric.ci_level:.0%} interval {low} to {high}, {uncertainty}"
    return EvalResultEntry(
        dataset_id=str(metric.detail.get("dataset") or f"awqbench/{result.kind}"),
        task_id=metric.id,
        value=metric.value,
        date=result.started or run.measured,
        notes=f"{result.backend}; {uncertainty}; unit: {metric.unit}; {metric.protocol}; "
        f"awqbench {run.manifest.awqbench_version}",
    )
