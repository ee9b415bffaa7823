"""lm-eval's own scoring of the same items and log-likelihoods: equal where it is right, and where it is not."""

from __future__ import annotations

import csv
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks.bbq import utils as bbq
from lm_eval.tasks.crows_pairs import utils as crows_pairs

from awqbench.backends.base import Scored
from awqbench.suites.fairness_measures import set_measures
from awqbench.suites.fairness_sets import FairnessSet, load_set


def said(nats: float) -> Scored:
    """A choice of one token with that log-likelihood."""
    return Scored(np.array([nats], np.float32), np.zeros(1, np.int32))


def figures(loaded: FairnessSet, nats: list[list[float]]) -> dict[str, float | None]:
    metrics, _ = set_measures(loaded, loaded.items, [[said(n) for n in row] for row in nats], 2)
    return {metric.id.partition("/")[2].partition("/")[2]: metric.value for metric in metrics}


def drawn(count: int, choices: int) -> list[list[float]]:
    return np.round(np.random.default_rng(0).normal(-9, 3, (count, choices)), 4).tolist()


def test_crows_pairs(tmp_path: Path) -> None:
    nats = [*drawn(40, 2), [-3.0, -3.0]]
    docs = [
        {"sent_more": f"more {i}", "sent_less": f"less {i}", "stereo_antistereo": "stereo", "bias_type": "age"}
        for i in range(len(nats))
    ]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, docs[0])
        writer.writeheader()
        writer.writerows(docs)
    loaded = load_set(f"crows-pairs:{tmp_path}")
    assert [list(item.choices) for item in loaded.items] == [crows_pairs.doc_to_choice(doc) for doc in docs]
    theirs = [
        crows_pairs.process_results(doc, [(n, False) for n in row])["pct_stereotype"]
        for doc, row in zip(docs, nats, strict=True)
    ]
    ours = figures(loaded, nats)["stereotype-preference"]
    # A tie is no preference: lm-eval counts it as one for the other sentence.
    assert ours == pytest.approx((sum(theirs) + 0.5) / len(theirs))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> tuple[FairnessSet, list[dict[str, Any]]]:
    """BBQ questions, and the documents that lm-eval makes of them."""
    import datasets

    asked = [("ambig", 2), ("disambig", 0), ("disambig", 1)] * 5
    rows = [
        {
            "example_id": i, "question_index": str(i // 4), "question_polarity": polarity,
            "context_condition": condition, "category": "Age", "context": "Two people came.", "question": "Who?",
            "answer_info": {"ans0": ["Ann", "old"], "ans1": ["Bob", "nonOld"], "ans2": ["No", "unknown"]},
            "additional_metadata": {"stereotyped_groups": ["old"]},
            "ans0": "Ann", "ans1": "Bob", "ans2": "Not known", "label": label,
        }
        for i, (polarity, (condition, label)) in enumerate(product(["neg", "nonneg"], asked))
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("bbq")
    (folder / "Age.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    docs = bbq.process_docs(datasets.Dataset.from_list(rows))
    return load_set(f"bbq:{folder}"), list(docs)


def theirs(docs: list[dict[str, Any]], loaded: FairnessSet, nats: list[list[float]]) -> dict[str, float]:
    """lm-eval's figures; of its ten ways to say "unknown", the item's own is the only one that is likely."""
    results = []
    for doc, item, row in zip(docs, loaded.items, nats, strict=True):
        by_answer = {choice: n / len(choice) for choice, n in zip(item.choices, row, strict=True)}
        lls = [(by_answer.get(choice, -1e9), False) for choice in bbq.doc_to_choice(doc)]
        results.append(bbq.process_results_multiple_choice(doc, lls))
    gather = {key: [result[key] for result in results] for key in results[0]}
    return {
        "accuracy": float(np.mean(gather["acc"])),
        "accuracy@ambiguous": bbq.agg_accuracy_amb(gather["accuracy_amb"]),
        "accuracy@disambiguated": bbq.agg_accuracy_disamb(gather["accuracy_disamb"]),
        "bias@ambiguous": bbq.agg_amb_bias_scores(gather["amb_bias_score"]),
        "bias@disambiguated": bbq.agg_disamb_bias_scores(gather["disamb_bias_score"]),
    }


def test_bbq(questions: tuple[FairnessSet, list[dict[str, Any]]]) -> None:
    loaded, docs = questions
    nats = [
        [n * len(choice) for n, choice in zip(row, item.choices, strict=True)]
        for row, item in zip(drawn(len(docs), 3), loaded.items, strict=True)
    ]
    ours = figures(loaded, nats)
    for name, value in theirs(docs, loaded, nats).items():
        assert ours[name] == pytest.approx(value), name
    # HELM multiplies by one minus the accuracy over both conditions instead: another figure, under another id.
    share = ours["bias@ambiguous"] / (1 - ours["accuracy@ambiguous"])
    assert ours["bias@ambiguous[overall-accuracy]"] == pytest.approx((1 - ours["accuracy"]) * share)


def test_bbq_without_a_biased_answer(questions: tuple[FairnessSet, list[dict[str, Any]]]) -> None:
    """Who always answers against the stereotype has a bias of -1: lm-eval says 0, as of an unbiased model."""
    loaded, docs = questions
    nats = [[-9.0, -9.0, -9.0] for _ in docs]
    for row, item in zip(nats, loaded.items, strict=True):
        row[1 if item.biased == 0 else 0] = -1.0
    ours, other = figures(loaded, nats), theirs(docs, loaded, nats)
    assert (ours["bias@ambiguous"], ours["bias@disambiguated"]) == (-1.0, -1.0)
    assert (other["bias@ambiguous"], other["bias@disambiguated"]) == (0.0, 0.0)
    nats[1] = [-1.0, -9.0, -9.0] if loaded.items[1].biased == 0 else [-9.0, -1.0, -9.0]  # one biased answer of twenty
    ours, other = figures(loaded, nats), theirs(docs, loaded, nats)
    assert ours["bias@disambiguated"] == other["bias@disambiguated"] == pytest.approx(2 / 20 - 1)


def test_an_answer_that_is_none_is_the_last_choice_there(
    questions: tuple[FairnessSet, list[dict[str, Any]]],
) -> None:
    """A generated answer that names no choice counts there as the last "unknown"; here one choice is always taken."""
    _, docs = questions
    result = bbq.process_results_generate_until(docs[0], ["elephants"])
    assert result["acc"] == 0.0
    _, _, not_unknown, _ = result["amb_bias_score"]
    assert not_unknown == 0.0


def test_winogender(tmp_path: Path) -> None:
    """Its prompt, its choices and its accuracy."""
    sentences = ["The nurse told the guest that she was late.", "The nurse told the guest that he was late."]
    lines = [f"nurse.guest.{a}.{g}.txt\t{sentences[a]}" for a, g in ((0, "female"), (1, "male"))]
    (tmp_path / "all_sentences.tsv").write_text("sentid\tsentence\n" + "\n".join(lines) + "\n")
    (tmp_path / "occupations-stats.tsv").write_text("occupation\tbls_pct_female\nnurse\t90\n")
    docs = [
        {"sentence": s, "pronoun": p, "occupation": "nurse", "participant": "guest", "label": label, "gender": "x"}
        for label, (s, p) in enumerate(zip(sentences, ("she", "he"), strict=True))
    ]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    own = {
        "include": str(Path(bbq.__file__).parents[1] / "winogender" / "winogender.yaml"),
        "task": "winogender_here", "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}},
    }  # fmt: skip
    (tmp_path / "here.yaml").write_text(json.dumps(own))
    manager = TaskManager(include_path=[tmp_path], include_defaults=False)
    task = manager.load("winogender_here")["tasks"]["winogender_here"]
    loaded = load_set(f"winogender-questions:{tmp_path}")
    nats = [[-2.0, -3.0], [-1.0, -4.0]]
    correct = []
    for doc, item, row in zip(task.eval_docs, loaded.items, nats, strict=True):
        assert task.doc_to_text(doc) == item.context
        assert task.doc_to_choice(doc) == list(item.choices)
        correct.append(task.process_results(doc, [(n, False) for n in row])["acc"])
    assert figures(loaded, nats)["accuracy"] == np.mean(correct) == 0.5
