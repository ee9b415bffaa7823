"""The local tasks over real data ask what lm-eval's own tasks ask, and stand in for them without a hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.suites.base import Context
from awqbench.suites.tasks import measure, quiet

Row = dict[str, Any]


@pytest.fixture
def data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWQBENCH_DATA", str(data_dir))
    return data_dir


def _arc(row: Row) -> Row:
    labels = list("ABCDE")[: len(row["choices"])]
    question = row["query"].removeprefix("Question: ")
    return {
        "question": question,
        "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }


def _piqa(row: Row) -> Row:
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def _winogrande(row: Row) -> Row:
    one, two = row["context_options"]
    shared = next(at for at in range(len(one)) if one[at] != two[at])
    shared = one.rindex(" ", 0, shared) + 1  # a name begins at a word, whatever letters the two names share
    sentence = f"{one[:shared]}_ {row['continuation']}"
    return {"sentence": sentence, "option1": one[shared:], "option2": two[shared:], "answer": str(row["gold"] + 1)}


def _boolq(row: Row) -> Row:
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": row["gold"]}


def _lambada(row: Row) -> Row:
    return {"text": f"{row['context']} {row['continuation']}"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "yaml", "as_on_the_hub"),
    [
        ("arc_easy", "arc/arc_easy.yaml", _arc),
        ("piqa", "piqa/piqa.yaml", _piqa),
        ("winogrande", "winogrande/default.yaml", _winogrande),
        ("boolq", "super_glue/boolq/default.yaml", _boolq),
        ("lambada_openai", "lambada/lambada_openai.yaml", _lambada),
    ],
)
def test_local_tasks_ask_what_lm_eval_asks(
    data: Path, tmp_path: Path, name: str, yaml: str, as_on_the_hub: Callable[[Row], Row]
) -> None:
    """The same rows in the form that the hub has them, through lm-eval's own task file: the same requests."""
    with quiet():
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks._yaml_loader import load_yaml

        from awqbench.suites.task_loading import _LM_EVAL, load_tasks

        (task,) = load_tasks([f"{name}_local"], None, None, 0).values()
        lines = (data / "tasks" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:40]
        rows = [as_on_the_hub(json.loads(line)) for line in lines]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = load_yaml(_LM_EVAL / yaml, resolve_func=True)
        there = {"dataset_path": "json", "dataset_name": None, "test_split": "test", "validation_split": None}
        there |= {"training_split": None, "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
        theirs = ConfigurableTask(config={**config, **there})
        theirs.set_config("num_fewshot", 0)
        asked = []
        for one in (task, theirs):
            one.build_all_requests(limit=40)
            asked.append([(request.doc_id, request.request_type, request.arguments) for request in one.instances])
    assert asked[0] == asked[1]
    assert len(asked[0]) >= 40
    assert [metric["metric"] for metric in task.config.metric_list] == [m["metric"] for m in config["metric_list"]]
    for own, other in zip(task.eval_docs.select(range(40)), theirs.eval_docs, strict=True):
        if "gold" in own:
            assert own["gold"] == (theirs.doc_to_text(other) if name == "winogrande" else theirs.doc_to_target(other))


@pytest.mark.data
def test_three_kinds_of_task(make_context: Callable[..., Context], data: Path) -> None:
    tasks = ["arc_easy_local", "winogrande_local", "lambada_openai_local"]
    measured = measure(make_context("tasks", tasks=tasks, limit=6))
    by_id = {metric.id: metric for metric in measured.metrics}
    assert set(by_id) == {
        "tasks/arc_easy_local+6/acc",
        "tasks/arc_easy_local+6/acc_norm",
        "tasks/arc_easy_local+6/prob",
        "tasks/winogrande_local+6/acc",
        "tasks/winogrande_local+6/prob",
        "tasks/lambada_openai_local+6/acc",
        "tasks/lambada_openai_local+6/perplexity",
    }
    for id, metric in by_id.items():
        rows = measured.items[measured.items.metric == id]
        assert metric.n == len(rows) == 6
        if id.endswith("perplexity"):
            assert metric.pairing == "log-ratio"
            assert rows.score.tolist() == pytest.approx(rows.nll.tolist())
        elif id.endswith("prob"):
            assert rows.correct.isna().all()
        elif "lambada" not in id:
            assert (rows.correct == (rows.prediction == rows.gold)).all()
    winogrande = measured.items[measured.items.metric == "tasks/winogrande_local+6/acc"]
    assert winogrande.gold.str.len().min() > 1


@pytest.mark.data
def test_hellaswag_is_sliced_by_its_activities(make_context: Callable[..., Context], data: Path) -> None:
    keys: dict[str, Any] = {"tasks": ["hellaswag_local"], "limit": 6, "min_group": 2}
    measured = measure(make_context("tasks", **keys, slices=["activity", "query:2", "activity & query:2"]))
    items = measured.items[measured.items.metric == "tasks/hellaswag_local+6/acc"]
    assert items.group_activity[0] == "Roof shingle removal"
    assert items["group_query:2"][0] == "1 of 2: 40 to 237 characters"
    assert (items["group_activity & query:2"] == items.group_activity + " & " + items["group_query:2"]).all()
    table = measured.metrics[0].detail["groups"]["query:2"]
    assert sum(group["n"] for group in table["by_group"].values()) == 6


@pytest.mark.data
@pytest.mark.slow
def test_a_task_without_a_hub_is_asked_of_local_data(
    make_context: Callable[..., Context], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow because lm-eval's 14,000 names are read first."""
    measured = measure(make_context("tasks", tasks=["piqa"], limit=2))
    assert {metric.id.split("/")[1] for metric in measured.metrics} == {"piqa_local+2"}
    assert measured.notes == ["the data of piqa cannot be had here: piqa_local was measured in its place"]
    monkeypatch.delenv("AWQBENCH_DATA")
    with pytest.raises(UserError, match=r"data of task 'piqa' cannot be loaded.*; piqa_local.* AWQBENCH_DATA"):
        measure(make_context("tasks", tasks=["piqa"], limit=2))
