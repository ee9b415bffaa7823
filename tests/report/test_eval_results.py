"""eval_results.yaml as the hub's own client reads it."""

from __future__ import annotations

import yaml
from huggingface_hub import parse_eval_result_entries

from awqbench.record.reader import Run
from awqbench.report.eval_results import eval_results


def test_the_hub_client_reads_it(rendered: dict[str, str]) -> None:
    entries = parse_eval_result_entries(yaml.safe_load(rendered["eval_results.yaml"]))
    assert [entry.task_id for entry in entries] == [
        "perplexity/synthetic-text@1024",
        "tasks/synthetic_task/acc",
        "fairness/synthetic_set/accuracy",
    ]
    assert entries[1].dataset_id == "awqbench/tasks"
    assert entries[1].notes is not None
    assert "95% interval" in entries[1].notes
    assert "n = 160" in entries[1].notes
    assert all(entry.notes and entry.notes.startswith("awq;") for entry in entries)


def test_failed_cells_and_missing_values_have_no_entry(run: Run) -> None:
    for cell in run.cells:
        if cell.result.suite == "tasks":
            cell.result.status = "failed"
        for metric in cell.result.metrics:
            metric.value = None if metric.id.startswith("perplexity") else metric.value
    entries = yaml.safe_load(eval_results(run))
    assert [entry["dataset"]["task_id"] for entry in entries] == ["fairness/synthetic_set/accuracy"]
