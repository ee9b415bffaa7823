"""Task accuracy: lm-eval asks, a worker answers, and every item's answer is kept.

lm-eval is imported inside functions, because that takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from awqbench.errors import AwqbenchError, InvalidMeasurement, first_line
from awqbench.sources.models import end_ids
from awqbench.suites.base import Context, Measurement, item_table, name_budget
from awqbench.suites.slices import item_columns
from awqbench.suites.task_rows import metric_ids, task_measures

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from awqbench.record.schema import Metric
    from awqbench.spec import TasksSpec


def measure(context: Context) -> Measurement:
    """Accuracy and the other metrics of each task, one row per (metric, item).

    Metric ids are `tasks/<task>/<metric>`, with `[filter]`, `@<n>shot`, `+chat`, `+one-turn` and `+system-<hash>` where
    these apply. A task with a question that cannot be asked, or whose own code fails on an answer, costs itself alone:
    its ids are `unmeasured`. Raises InvalidMeasurement where that is so of all, UserError for an
    unknown task, data that cannot be had, a column to slice by that isn't there, or a task that greedy decoding cannot
    answer.
    """
    suite: TasksSpec = context.suite
    with quiet():
        from awqbench.suites.lm import WorkerLM
        from awqbench.suites.task_loading import documents_of, load_tasks

        tasks = load_tasks(suite.tasks, suite.include_path, suite.num_fewshot, context.spec.seed)
        for task in tasks.values():
            context.require("generate" if task.OUTPUT_TYPE == "generate_until" else "score")
        sliced = suite.slices or suite.cluster
        columns = item_columns(documents_of(tasks), suite.slices, suite.cluster) if sliced else {}
        ends = end_ids(context.model_dir)
        lm = WorkerLM(context.worker, context.tokenizer, context.progress, ends, context.asked_whole)
        chosen = {name: context.chosen(len(task.eval_docs), suite.limit) for name, task in tasks.items()}
        results = _evaluate(lm, tasks, chosen, suite)
    # A task that does not name its questions may be any of them.
    if len(lm.unmeasured) == len(tasks) or lm.unmeasured.keys() - tasks.keys():
        raise InvalidMeasurement("; ".join(f"{name}: {reason}" for name, reason in lm.unmeasured.items()))
    metrics: list[Metric] = []
    rows: list[dict[str, Any]] = []
    measured = Measurement([], notes=_stand_ins(suite.tasks, tasks))
    for name, task in tasks.items():
        if name in lm.unmeasured:
            lost = metric_ids(name, task, _prompting(task, suite))
            measured.unmeasured |= dict.fromkeys(lost, f"{name} was not measured: {lm.unmeasured[name]}")
            continue
        protocol = _protocol(task, lm, suite)
        figures, items = task_measures(
            name,
            task,
            results,
            lm,
            columns.get(name),
            protocol,
            _prompting(task, suite),
            suite.min_group,
        )
        metrics += figures
        rows += items
    measured.metrics, measured.items = metrics, item_table(rows)
    for name, task in tasks.items():
        measured = name_budget(measured, f"tasks/{name}", suite.limit, len(task.eval_docs), suite.draw)
    return measured


def _stand_ins(asked: Sequence[str], tasks: Mapping[str, Task]) -> list[str]:
    from awqbench.suites.task_loading import LOCAL

    replaced = [name for name in asked if name not in tasks and name + LOCAL in tasks and name + LOCAL not in asked]
    return [f"the data of {name} cannot be had here: {name}{LOCAL} was measured in its place" for name in replaced]


def _evaluate(lm: Any, tasks: dict[str, Task], chosen: dict[str, Sequence[int]], suite: TasksSpec) -> dict[str, Any]:
    # Not simple_evaluate: it would load the tasks again and spend seconds in describing the machine.
    from lm_eval.evaluator import evaluate

    for name, task in tasks.items():
        _guard(name, task, lm.unmeasured)
    results = evaluate(
        lm=lm, task_dict={"tasks": tasks}, samples=chosen, bootstrap_iters=0, log_samples=True,
        apply_chat_template=suite.apply_chat_template,
        fewshot_as_multiturn=suite.apply_chat_template and suite.fewshot_as_multiturn,
        system_instruction=suite.system_instruction,
    )  # fmt: skip
    return cast(dict[str, Any], results)


def _guard(name: str, task: Task, unmeasured: dict[str, str]) -> None:
    """Have a task's own reading of its answers fail alone, and read nothing where the task was not asked; and its
    figure of all answers: a perplexity per word that no float holds, where words are not divided by spaces."""
    apply_filters, process_results, aggregation = task.apply_filters, task.process_results, task.aggregation

    def tried(read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except AwqbenchError:
            raise
        except Exception as error:
            unmeasured[name] = f"its own code failed on an answer: {type(error).__name__}: {first_line(error)}"

    def filtered() -> None:
        if name not in unmeasured:
            tried(apply_filters)
        if name in unmeasured:
            for instance in task.instances:
                instance.filtered_resps.clear()  # of which lm-eval then has nothing to process

    task.apply_filters = filtered
    task.process_results = lambda doc, results: tried(process_results, doc, results) or {}
    task.aggregation = lambda: {metric: partial(tried, function) for metric, function in aggregation().items()}


def _prompting(task: Task, suite: TasksSpec) -> str:
    """How examples and prompts are put, as it stands in metric ids: `@5shot+chat`; nothing for a bare question.

    Another system prompt is another protocol, so it goes by the beginning of its hash.
    """
    shots = task.get_config("num_fewshot") or 0
    parts = [f"@{shots}shot" if shots else "", "+chat" if suite.apply_chat_template else ""]
    if shots and suite.apply_chat_template and not suite.fewshot_as_multiturn:
        parts.append("+one-turn")
    if suite.system_instruction is not None:
        parts.append(f"+system-{hashlib.sha256(suite.system_instruction.encode()).hexdigest()[:6]}")
    return "".join(parts)


def _protocol(task: Task, lm: Any, suite: TasksSpec) -> str:
    kind = str(task.OUTPUT_TYPE)
    how = {
        "multiple_choice": "the choice of largest summed log-likelihood (acc_norm: per character, acc_bytes: per byte)",
        "loglikelihood": "log-likelihood of the continuation (acc: it is the greedy one)",
        "loglikelihood_rolling": f"log-likelihood of whole documents in windows of {lm.rolling_window} tokens",
        "generate_until": "greedy generation",
    }.get(kind, kind)
    shots = task.get_config("num_fewshot") or 0
    prompt = "the model's chat template" if suite.apply_chat_template else "plain text"
    if shots and suite.apply_chat_template:
        prompt += ", examples as turns" if suite.fewshot_as_multiturn else ", examples in one turn"
    if suite.system_instruction is not None:
        prompt += f", after the system prompt {suite.system_instruction!r}"
    return (
        f"lm-eval {version('lm_eval')}, task version {task.VERSION}, {shots}-shot, {prompt}: {how}; "
        f"contexts keep their last {lm.max_positions} tokens"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's log, progress bars and warnings to itself: awqbench shows progress of its own."""
    import logging
    import warnings

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        from lm_eval.api import task as module

        bar, shown = module.tqdm, datasets.is_progress_bar_enabled()
        module.tqdm = lambda iterable, **_: iterable
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            logger.setLevel(level)
            module.tqdm = bar
            if shown:
                datasets.enable_progress_bars()
