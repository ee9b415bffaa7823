"""lm-eval's logged samples as item rows and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from awqbench.record.schema import GROUP_PREFIX, Metric
from awqbench.suites.fairness_groups import group_measures
from awqbench.suites.means import mean_metric
from awqbench.suites.task_companions import (
    Reading,
    Row,
    Sample,
    answer_key,
    choice_likelihoods,
    companions,
    gold_places,
    names_of_companions,
)

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from awqbench.suites.lm import WorkerLM

_BY_DOCUMENT = "; mean over documents, where lm-eval's own figure (detail.lm_eval) weights them by length"

# Values that are no plain numbers, by metric name. Those of whole documents are (log-likelihood, words or bytes).
_READINGS = {
    "perplexity": Reading(lambda v: -v, "log-ratio", "perplexity", False),
    "word_perplexity": Reading(lambda v: -v[0] / v[1], "log-ratio", "perplexity", False, "@document", _BY_DOCUMENT),
    "byte_perplexity": Reading(lambda v: -v[0] / v[1], "log-ratio", "perplexity", False, "@document", _BY_DOCUMENT),
    "bits_per_byte": Reading(lambda v: -v[0] / v[1] / log(2), "difference", "bits", False, "@document", _BY_DOCUMENT),
    "brier_score": Reading(lambda v: _brier(*v), "difference", "squared error", False),
}


def task_measures(
    name: str,
    task: Task,
    results: Mapping[str, Any],
    lm: WorkerLM,
    columns: Sequence[Mapping[str, str]] | None,
    protocol: str,
    prompting: str,
    min_group: int,
) -> tuple[list[Metric], list[Row]]:
    """The metrics of one task and their item rows. A metric that is no mean over items gets its figure and no rows.

    `prompting` says in the ids how examples and prompts were put. `columns` are the group columns and the cluster that
    each document was given, in the documents' order. Shares where higher is better carry their rates by group in
    `detail.groups`.
    """
    by_filter: dict[str, list[Sample]] = defaultdict(list)
    for sample in results["samples"][name]:
        by_filter[sample["filter"]].append(sample)
    metrics: list[Metric] = []
    rows: list[Row] = []
    for number, (filter_name, samples) in enumerate(by_filter.items()):
        further = companions(task, samples, lm) if number == 0 else {}
        for metric in [*samples[0]["metrics"], *further]:
            figure = results["results"][name].get(f"{metric},{filter_name}")
            reading = further.get(metric) or _reading(metric, samples, task, figure)
            # What doesn't depend on how an answer is read from the text has no filter in its name.
            filtered = "none" if metric in further else filter_name
            id = _metric_id(name, metric, filtered, prompting)
            if reading is None:
                metrics.append(_bare(id, figure, len(samples), protocol, task.higher_is_better().get(metric)))
                continue
            items = [
                _row(id + reading.suffix, metric, reading, name, task, sample, lm.token_counts)
                | (dict(columns[sample["doc_id"]]) if columns else {})
                for sample in samples
            ]
            # A share that should be low (of stereotypes) counts no right answers.
            graded = reading.graded and reading.unit == "share" and reading.higher_is_better is not False
            if graded and all(item["score"] in (0.0, 1.0) for item in items):
                items = [{**item, "correct": item["score"] == 1.0} for item in items]
            metrics.append(
                mean_metric(
                    id + reading.suffix,
                    [item["score"] for item in items],
                    [item["cluster"] for item in items],
                    unit=reading.unit,
                    protocol=protocol + reading.note,
                    higher_is_better=reading.higher_is_better,
                    pairing=reading.pairing,
                    bounds=(0.0, 1.0) if reading.unit == "share" else None,
                    detail=({"lm_eval": figure} if reading.suffix else {})
                    | _by_group(reading, metric, items, min_group),
                )
            )
            rows += items
    return metrics, rows


def metric_ids(name: str, task: Task, prompting: str) -> list[str]:
    """The ids that `task_measures` gives the figures of a task, as far as they are known before it is measured."""
    filters = [each.name for each in task._filters]
    own = [(metric, filter_name) for filter_name in filters for metric in task.aggregation()]
    further = [(metric, "none") for metric in names_of_companions(task.OUTPUT_TYPE) if metric not in task.aggregation()]
    suffixes = {metric: reading.suffix for metric, reading in _READINGS.items()}
    return [_metric_id(name, *each, prompting) + suffixes.get(each[0], "") for each in own + further]


def _by_group(reading: Reading, metric: str, items: list[Row], min_group: int) -> dict[str, Any]:
    """Rates by group, the worst of them and their gap, of shares where higher is better."""
    if reading.unit != "share" or not reading.higher_is_better:
        return {}
    tables, _ = group_measures("tasks", metric, items, "", min_group)
    return {"groups": tables} if tables else {}


def _reading(metric: str, samples: list[Sample], task: Task, figure: Any) -> Reading | None:
    values = [sample[metric] for sample in samples]
    if metric in _READINGS:
        return _READINGS[metric]
    if not all(isinstance(value, int | float | np.number) for value in values):
        return None
    # Some plain numbers are aggregated by something else than their mean.
    if not isinstance(figure, int | float) or abs(figure - float(np.mean(values))) > 1e-9 * max(1.0, abs(figure)):
        return None
    share = min(values) >= 0 and max(values) <= 1
    return Reading(float, unit="share" if share else "score", higher_is_better=task.higher_is_better().get(metric))


def _metric_id(task: str, metric: str, filter_name: str, prompting: str) -> str:
    filtered = "" if filter_name == "none" else f"[{filter_name}]"
    return f"tasks/{task}/{metric}{filtered}{prompting}"


def _bare(id: str, figure: Any, n: int, protocol: str, higher_is_better: bool | None) -> Metric:
    return Metric(
        id=id, value=float(figure) if isinstance(figure, int | float) else None, unit="score", n=n,
        protocol=f"{protocol}; no mean over items, so it has neither rows nor an interval",
        higher_is_better=higher_is_better, pairing="none",
    )  # fmt: skip


def _row(
    id: str, metric: str, reading: Reading, name: str, task: Task, sample: Sample, token_counts: Mapping[Any, int]
) -> Row:
    doc = sample["doc"]
    item_id = f"{name}/{sample['doc_id']}-{sample['doc_hash'][:8]}"
    columns = dict(doc) if isinstance(doc, Mapping) else {}
    groups = {k: str(v) for k, v in columns.items() if str(k).startswith(GROUP_PREFIX) and v is not None}
    return {
        "metric": id,
        "item_id": item_id,
        "cluster": str(columns["cluster"]) if columns.get("cluster") is not None else item_id,
        "score": reading.score(sample[metric]),
        **_answer(metric, task, sample, token_counts),
        **groups,
    }


def _answer(metric: str, task: Task, sample: Sample, token_counts: Mapping[Any, int]) -> Row:
    """What the model answered, what was right, the right answer's negative log-likelihood (nats) and its tokens."""
    arguments, responses = sample["arguments"], [response[0] for response in sample["resps"]]
    kind = task.OUTPUT_TYPE
    if kind == "multiple_choice":
        return _choice(metric, task, sample, arguments, [value for value, _ in responses], token_counts)
    if kind == "generate_until":
        answer, target = sample["filtered_resps"][0], sample["target"]
        return {"prediction": str(answer), "gold": str(target), "tokens": token_counts.get(answer_key(arguments[0]))}
    known = {"tokens": token_counts.get(arguments[0])}
    if kind == "loglikelihood":
        value, greedy = responses[0]
        return {"prediction": "greedy" if greedy else "other", "gold": str(sample["target"]), "nll": -value, **known}
    return {"nll": -responses[0], **known}


def _choice(
    metric: str, task: Task, sample: Sample, arguments: Any, values: list[float], token_counts: Mapping[Any, int]
) -> Row:
    doc = sample["doc"]
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    likelihoods = choice_likelihoods(task, sample)
    if metric == "acc_mutual_info":
        likelihoods = likelihoods - np.asarray(values[len(choices) :])
    elif metric == "acc_norm":
        likelihoods = likelihoods / [max(1, len(choice)) for choice in choices]
    elif metric == "acc_bytes":
        likelihoods = likelihoods / [max(1, len(choice.encode())) for choice in choices]
    # Choices that read alike (they differ in their contexts) are told apart by their place.
    names = choices if len(set(choices)) == len(choices) else [str(place) for place in range(len(choices))]
    ranked = np.sort(likelihoods)
    margin = float(ranked[-1] - ranked[-2]) if len(ranked) > 1 else None
    answer: Row = {"prediction": names[int(np.argmax(likelihoods))], "margin": margin}
    gold = gold_places(task, sample)
    if len(gold) == 1:
        answer |= {"gold": names[gold[0]], "nll": -values[gold[0]], "tokens": token_counts.get(arguments[gold[0]])}
    elif gold:
        answer["gold"] = " | ".join(names[place] for place in gold)
    return answer


def _brier(gold: int, probabilities: Any) -> float:
    target = np.zeros(len(probabilities))
    target[gold] = 1.0
    return float(((np.asarray(probabilities) - target) ** 2).sum())
