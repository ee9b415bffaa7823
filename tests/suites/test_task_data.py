"""Local task files over real data: choices, choices that share a continuation, and a last word to predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.suites.base import Context
from awqbench.suites.tasks import measure

HEADER = """
dataset_path: json
dataset_kwargs: {data_files: {test: $AWQBENCH_DATA/tasks/%s.jsonl}}
test_split: test
"""

ARC = """
task: local_arc
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""

# lm-eval's form for contexts that differ while the continuation is the same: text is the gold index.
WINOGRANDE = """
task: local_winogrande
output_type: multiple_choice
doc_to_text: gold
doc_to_choice: context_options
doc_to_target: continuation
metric_list: [{metric: acc}]
"""

LAMBADA = """
task: local_lambada
output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: "{{continuation}}"
metric_list: [{metric: acc, aggregation: mean}, {metric: perplexity, aggregation: perplexity}]
"""


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWQBENCH_DATA", str(data_dir))
    for name, text in (("arc_easy", ARC), ("winogrande", WINOGRANDE), ("lambada_openai", LAMBADA)):
        (tmp_path / f"{name}.yaml").write_text(text + HEADER % name)
    return tmp_path


@pytest.mark.data
def test_three_kinds_of_task(make_context: Callable[..., Context], folder: Path) -> None:
    tasks = ["local_arc", "local_winogrande", "local_lambada"]
    measured = measure(make_context("tasks", tasks=tasks, include_path=str(folder), limit=6))
    by_id = {metric.id: metric for metric in measured.metrics}
    assert set(by_id) == {
        "tasks/local_arc+6/acc",
        "tasks/local_arc+6/acc_norm",
        "tasks/local_winogrande+6/acc",
        "tasks/local_lambada+6/acc",
        "tasks/local_lambada+6/perplexity",
    }
    for id, metric in by_id.items():
        rows = measured.items[measured.items.metric == id]
        assert metric.n == len(rows) == 6
        if id.endswith("perplexity"):
            assert metric.pairing == "log-ratio"
            assert rows.score.tolist() == pytest.approx(rows.nll.tolist())
        elif "lambada" not in id:
            assert (rows.correct == (rows.prediction == rows.gold)).all()
    winogrande = measured.items[measured.items.metric == "tasks/local_winogrande+6/acc"]
    assert winogrande.gold.str.len().min() > 1


@pytest.mark.slow
def test_shipped_task_without_its_data(make_context: Callable[..., Context]) -> None:
    """lm-eval knows the task, the hub is out of reach: the reader is told so."""
    with pytest.raises(UserError, match=r"data of task 'arc_easy' cannot be loaded"):
        measure(make_context("tasks", tasks=["arc_easy"], limit=2))
