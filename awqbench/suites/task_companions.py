"""What is told of items beside lm-eval's own metrics: the right answer's probability, and how long answers are.

An accuracy moves only where an answer flips; the probability of the right answer moves everywhere, so that fewer items
show the same change (Miller, "Adding error bars to evals", arXiv 2411.00640, section 3.2). And a model that rambles or
breaks off has regressed, whatever is read from its text (MLPerf Inference asks for at least 90 % of the reference's
tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from awqbench.record.schema import Pairing

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from awqbench.stats.inputs import Floats
    from awqbench.suites.lm import WorkerLM

Sample = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How a value that is kept per item becomes a score whose mean is the metric."""

    score: Callable[[Any], float]
    pairing: Pairing = "difference"
    unit: str = "share"
    higher_is_better: bool | None = None
    suffix: str = ""
    note: str = ""
    graded: bool = True  # whether a score of 1 says that the answer is right


_PROBABILITY = Reading(
    float, higher_is_better=True, graded=False,
    note="; here the right choice's probability among the choices: softmax of their summed log-likelihoods",
)  # fmt: skip
_TOKENS = Reading(
    float, unit="tokens", graded=False,
    note="; here tokens per answer, up to the stop sequence or the end of text, neither of them counted",
)  # fmt: skip
_CUT_SHORT = Reading(
    float, higher_is_better=False, graded=False, note="; here answers that ran into the task's token limit"
)
_EMPTY = Reading(float, higher_is_better=False, graded=False, note="; here answers without any text but blanks")


def companions(task: Task, samples: list[Sample], lm: WorkerLM) -> Mapping[str, Reading]:
    """Readings of further values by metric name, after each sample was given its value under that name.

    `prob` for multiple choice, where every sample has a right answer; `generated-tokens`, `cut-short` and `empty` for
    generated text. A task all of whose metrics should be low, as of stereotypes, names a choice as its target that is
    not right; a squared error is of what is.
    """
    better = task.higher_is_better()
    graded = any(better.get(metric) is not False or metric == "brier_score" for metric in samples[0]["metrics"])
    if task.OUTPUT_TYPE == "multiple_choice" and graded and "prob" not in samples[0]["metrics"]:
        gold = [gold_places(task, sample) for sample in samples]
        if not all(gold):
            return {}
        for sample, places in zip(samples, gold, strict=True):
            likelihoods = choice_likelihoods(task, sample)
            weights = np.exp(likelihoods - likelihoods.max())
            sample["prob"] = float(weights[places].sum() / weights.sum())
        return {"prob": _PROBABILITY}
    if task.OUTPUT_TYPE == "generate_until":
        for sample in samples:
            request = answer_key(sample["arguments"][0])
            sample["generated-tokens"] = lm.token_counts[request]
            sample["cut-short"] = request in lm.cut_short
            sample["empty"] = not sample["resps"][0][0].strip()
        return {"generated-tokens": _TOKENS, "cut-short": _CUT_SHORT, "empty": _EMPTY}
    return {}


def names_of_companions(kind: str) -> tuple[str, ...]:
    """What `companions` may add to the metrics of a task of this output type."""
    return {"multiple_choice": ("prob",), "generate_until": ("generated-tokens", "cut-short", "empty")}.get(kind, ())


def answer_key(arguments: Any) -> tuple[str, str]:
    """Names a generated answer: the prompt and how it was continued, which two tasks of one prompt may differ in."""
    prompt, settings = arguments
    return prompt, repr(settings)


def choice_likelihoods(task: Task, sample: Sample) -> Floats:
    """Summed log-likelihoods of a question's choices, float64 [choices], nats."""
    values = [response[0][0] for response in sample["resps"]]
    return np.asarray(values[: len(task.doc_to_choice(sample["doc"]))], np.float64)


def gold_places(task: Task, sample: Sample) -> list[int]:
    """Places of the right choices; none where the document names none that there is."""
    doc = sample["doc"]
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    gold = task.doc_to_text(doc) if task.multiple_input else sample["target"]
    if isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    places = gold if isinstance(gold, list) else [gold]
    return [place for place in places if isinstance(place, int) and 0 <= place < len(choices)]
