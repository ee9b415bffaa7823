"""The tasks suite against lm-eval's own HFLM, on a tiny real model."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.suites.base import Context, Measurement
from awqbench.suites.tasks import measure, quiet

MakeContext = Callable[..., Context]

DOCS = [
    {"q": "Two and two make", "choices": ["four", "a dozen"], "gold": 0, "cluster": "sums", "group_kind": "a"},
    {"q": "The sky is", "choices": ["green as grass", "blue"], "gold": 1, "cluster": "sums", "group_kind": "b"},
    {"q": "A cat says", "choices": ["woof, woof", "meow"], "gold": 1, "cluster": "pets", "group_kind": "a"},
    {"q": "A week has seven", "choices": ["days", "years and a half"], "gold": 0, "cluster": "time", "group_kind": "b"},
]

CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
  - {metric: f1, aggregation: f1, higher_is_better: true}
"""

ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q * 200}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""

GENERATE = """
task: tiny_generate
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["%s"], max_gen_toks: 12, do_sample: %s}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    (tmp_path / "choice.yaml").write_text(CHOICE)
    (tmp_path / "rolling.yaml").write_text(ROLLING)
    (tmp_path / "generate.yaml").write_text(GENERATE % ("~", "false"))
    return tmp_path


def hflm_samples(model_dir: Path, folder: Path, task: str, max_length: int) -> dict[str, Any]:
    """The same task through lm-eval's own Hugging Face model."""
    with quiet():
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        from awqbench.suites.task_loading import load_tasks

        tasks = load_tasks([task], str(folder), None, 0)
        lm = HFLM(pretrained=str(model_dir), device="cpu", dtype="float32", batch_size=2, max_length=max_length)
        results: dict[str, Any] = evaluate(lm=lm, task_dict={"tasks": tasks}, bootstrap_iters=0)
    return results


def test_choices_agree_with_hflm(make_context: MakeContext, folder: Path, tiny_llama: Path) -> None:
    measured = measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder)))
    theirs = hflm_samples(tiny_llama, folder, "tiny_choice", 2048)
    for sample in theirs["samples"]["tiny_choice"]:
        for metric in ("acc", "acc_norm", "brier_score"):
            rows = measured.items[measured.items.metric == f"tasks/tiny_choice/{metric}"]
            (row,) = rows[rows.item_id.str.startswith(f"tiny_choice/{sample['doc_id']}-")].to_dict("records")
            likelihoods = [response[0][0] for response in sample["resps"]]
            doc = sample["doc"]
            assert row["nll"] == pytest.approx(-likelihoods[doc["gold"]], rel=1e-4)
            assert row["gold"] == doc["choices"][doc["gold"]]
            assert row["tokens"] == len(doc["choices"][doc["gold"]]) + 1
            assert row["cluster"] == doc["cluster"]
            assert row["group_kind"] == doc["group_kind"]
            if metric == "brier_score":
                continue
            divisors = [len(c) if metric == "acc_norm" else 1 for c in doc["choices"]]
            best = max(range(2), key=lambda place: likelihoods[place] / divisors[place])
            assert row["prediction"] == doc["choices"][best]
            assert row["score"] == sample[metric] == float(row["correct"])
    values = {metric.id.split("/")[-1]: metric for metric in measured.metrics}
    for metric in ("acc", "acc_norm", "brier_score", "f1"):
        assert values[metric].value == pytest.approx(theirs["results"]["tiny_choice"][f"{metric},none"], rel=1e-4)
    assert values["f1"].pairing == "none"
    assert "tasks/tiny_choice/f1" not in set(measured.items.metric)
    assert values["acc"].n == 4
    assert values["acc"].detail["clusters"] == 3


def test_rolling_agrees_with_hflm(make_context: MakeContext, folder: Path, tiny_llama: Path) -> None:
    """Documents of 2000 to 3200 tokens: more than one window, in the model's 2048 positions."""
    measured = measure(make_context("tasks", tasks=["tiny_rolling"], include_path=str(folder)))
    theirs = hflm_samples(tiny_llama, folder, "tiny_rolling", 2047)
    rows = measured.items[measured.items.metric == "tasks/tiny_rolling/word_perplexity@document"]
    expected = [-sample["resps"][0][0] for sample in theirs["samples"]["tiny_rolling"]]
    assert rows.nll.tolist() == pytest.approx(expected, rel=1e-4)
    assert rows.tokens.tolist() == [len(doc["q"]) * 200 for doc in DOCS]
    by_id = {metric.id: metric for metric in measured.metrics}
    perplexity = by_id["tasks/tiny_rolling/word_perplexity@document"]
    assert perplexity.value == pytest.approx(math.exp(rows.score.mean()))
    weighted = theirs["results"]["tiny_rolling"]["word_perplexity,none"]
    assert perplexity.detail["lm_eval"] == pytest.approx(weighted, rel=1e-4)


def test_a_perplexity_beyond_all_numbers_costs_its_task(make_context: MakeContext, folder: Path) -> None:
    (folder / "rolling.yaml").write_text(ROLLING.replace("q * 200", "'日' * 200"))
    measured = measure(make_context("tasks", tasks=["tiny_rolling", "tiny_choice"], include_path=str(folder)))
    assert "OverflowError" in measured.unmeasured["tasks/tiny_rolling/word_perplexity@document"]
    assert {metric.id.split("/")[1] for metric in measured.metrics} == {"tiny_choice"}


def test_generation_agrees_with_hflm(make_context: MakeContext, folder: Path, tiny_llama: Path) -> None:
    measured = measure(make_context("tasks", tasks=["tiny_generate"], include_path=str(folder)))
    theirs = hflm_samples(tiny_llama, folder, "tiny_generate", 2048)
    expected = [str(sample["filtered_resps"][0]) for sample in theirs["samples"]["tiny_generate"]]
    answers = measured.items[measured.items.metric == "tasks/tiny_generate/exact_match"]
    assert answers.prediction.tolist() == expected
    assert answers.gold.tolist() == ["four", "blue", "meow", "days"]
    assert answers.tokens.max() <= 12


def test_an_answer_ends_where_the_model_says_as_in_hflm(
    make_context: MakeContext, folder: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """Chat models end a turn by a token that is not their tokenizer's EOS; generation_config.json names it."""
    context = make_context("tasks", tasks=["tiny_generate"], include_path=str(folder))
    answers = context.worker.generate([context.tokenizer.encode(str(doc["q"])) for doc in DOCS], 12, [])
    end, last = next(
        (token, text)
        for answer in answers
        for token in answer[1:]
        if (text := context.tokenizer.decode([token])).isascii()
    )
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end], "pad_token_id": 0}))
    told = by_name(measure(replace(context, model_dir=model)), "tiny_generate")["generated-tokens"]
    assert told.score.tolist() == [answer.index(end) if end in answer else 12 for answer in answers]
    theirs = hflm_samples(model, folder, "tiny_generate", 2048)["samples"]["tiny_generate"]
    # The end is an ordinary byte here, which lm-eval leaves in the text; a special token would not be there.
    assert told.prediction.tolist() == [str(s["filtered_resps"][0]).removesuffix(last) for s in theirs]


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_rolling", "tiny_generate"])
def test_an_engine_with_less_room_than_the_reference_is_not_asked_less(
    make_context: MakeContext, folder: Path, task: str
) -> None:
    """What it would have to cut is asked whole of the reference, and the difference would be called a loss."""
    context = make_context("tasks", tasks=[task], include_path=str(folder))
    context.worker.description["max_positions"] = 24
    with pytest.raises(InvalidMeasurement, match=r"in the (24|12) that this engine"):
        measure(context)
    assert measure(replace(context, role="reference")).metrics  # the rest follow it


READS = "process_results: !function code.reads\noutput_type:"
SIEVE = "filter_list: [{name: sieve, filter: [{function: custom, filter_fn: !function code.sieves}]}]"
CODE = """
def sieves(answers, documents):
    return [[answer[99]] for each in answers for answer in each]

def reads(document, results):
    return {"exact_match": results[0].index("no such answer")}
"""


@pytest.mark.parametrize(
    ("text", "lost", "reason"),
    [
        (
            CHOICE.replace("doc_to_choice: choices", 'doc_to_choice: "{{[q * 200, q]}}"'),
            {"acc", "acc_norm", "brier_score", "f1", "prob"},
            "does not fit",
        ),
        (GENERATE % ("~", "false"), {"exact_match", "generated-tokens", "cut-short", "empty"}, "the task generates"),
        (
            (GENERATE % ("~", "false")).replace("output_type:", READS),
            {"exact_match"},
            "its own code failed on an answer",
        ),
        (GENERATE % ("~", "false") + SIEVE, {"exact_match[sieve]"}, "its own code failed on an answer: IndexError"),
    ],
)
def test_a_task_that_cannot_be_measured_costs_itself_alone(
    make_context: MakeContext, folder: Path, text: str, lost: set[str], reason: str
) -> None:
    """Before, its whole cell was lost, or the run ended in a traceback."""
    (folder / "code.py").write_text(CODE)
    text = re.sub("task: tiny_(choice|generate)", "task: tiny_lost", text)
    text = text.replace("max_gen_toks: 12", "max_gen_toks: 1200") if "generates" in reason else text
    (folder / "lost.yaml").write_text(text)
    keys: dict[str, Any] = {"tasks": ["tiny_lost", "tiny_choice"], "include_path": str(folder), "limit": 3}
    context = make_context("tasks", **keys)
    context.worker.description["max_positions"] = 1000
    context = replace(context, role="reference")
    measured = measure(context)
    alone = measure(replace(context, suite=context.suite.model_copy(update={"tasks": ["tiny_choice"]})))
    assert measured.metrics == alone.metrics
    assert measured.items.equals(alone.items)
    assert {f"tasks/tiny_lost+3/{name}" for name in lost} <= set(measured.unmeasured)
    assert all(why.startswith("tiny_lost was not measured: ") and reason in why for why in measured.unmeasured.values())
    only = replace(context, suite=context.suite.model_copy(update={"tasks": ["tiny_lost"]}))
    with pytest.raises(InvalidMeasurement, match=f"^tiny_lost: .*{reason}"):
        measure(only)


def test_a_question_that_cannot_be_asked_and_names_no_task_costs_them_all(
    make_context: MakeContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would be answered with must not be taken for an answer."""
    from awqbench.suites.lm import WorkerLM

    asked = WorkerLM._asked

    def nameless(self: Any, requests: Any, check: Any) -> list[int]:
        requests[0].task_name = None
        return asked(self, requests, check)

    monkeypatch.setattr(WorkerLM, "_asked", nameless)
    context = make_context("tasks", tasks=["tiny_choice", "tiny_generate"], include_path=str(folder), limit=1)
    context.worker.description["max_positions"] = 4
    with pytest.raises(InvalidMeasurement, match=r"^None: "):
        measure(replace(context, role="reference"))


def test_length_of_generated_answers(make_context: MakeContext, folder: Path) -> None:
    """The tiny model never ends by itself; a stop text of two tokens ends an answer where it begins."""
    keys: dict[str, Any] = {"tasks": ["tiny_generate"], "include_path": str(folder)}
    whole = by_name(measure(make_context("tasks", **keys)), "tiny_generate")
    texts = whole["generated-tokens"].prediction.tolist()
    assert whole["generated-tokens"].score.tolist() == [12] * 4
    assert whole["cut-short"].score.tolist() == [1] * 4
    assert whole["cut-short"].correct.isna().all()
    assert whole["empty"].score.tolist() == [float(not text.strip()) for text in texts]
    stop = texts[0][4:6]
    (folder / "generate.yaml").write_text(GENERATE.replace('until: ["%s"]', f"until: {json.dumps([stop])}") % "false")
    cut = by_name(measure(make_context("tasks", **keys)), "tiny_generate")
    at = texts[0].index(stop)
    assert cut["generated-tokens"].prediction[cut["generated-tokens"].index[0]] == texts[0][:at]
    assert cut["generated-tokens"].score.tolist()[0] == at  # a byte a token, a character a byte
    assert cut["cut-short"].score.tolist()[0] == 0


def test_two_tasks_of_one_prompt_keep_their_own_lengths(make_context: MakeContext, folder: Path) -> None:
    shorter = GENERATE.replace("task: tiny_generate", "task: tiny_short").replace("max_gen_toks: 12", "max_gen_toks: 5")
    (folder / "short.yaml").write_text(shorter % ("~", "false"))
    both = measure(make_context("tasks", tasks=["tiny_generate", "tiny_short"], include_path=str(folder)))
    lengths = {metric.id: metric.value for metric in both.metrics if metric.id.endswith("/generated-tokens")}
    assert lengths == {"tasks/tiny_generate/generated-tokens": 12, "tasks/tiny_short/generated-tokens": 5}


def by_name(measured: Measurement, task: str) -> dict[str, pd.DataFrame]:
    """The item rows of each of a task's metrics."""
    return {name.removeprefix(f"tasks/{task}/"): rows for name, rows in measured.items.groupby("metric", observed=True)}


def test_probability_and_margin_by_hand(make_context: MakeContext, folder: Path) -> None:
    found = by_name(measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder))), "tiny_choice")
    likelihoods = {}
    for gold in (0, 1):  # the same questions with the other choice called right tell its log-likelihood
        (folder / "docs.jsonl").write_text("".join(json.dumps({**doc, "gold": gold}) + "\n" for doc in DOCS))
        rows = by_name(measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder))), "tiny_choice")
        likelihoods[gold] = [-nll for nll in rows["acc"].nll]
    for place, doc in enumerate(DOCS):
        own, other = likelihoods[doc["gold"]][place], likelihoods[1 - doc["gold"]][place]
        assert found["prob"].score.tolist()[place] == pytest.approx(1 / (1 + math.exp(other - own)))
        assert found["acc"].margin.tolist()[place] == pytest.approx(abs(own - other))
        own, other = own / len(doc["choices"][doc["gold"]]), other / len(doc["choices"][1 - doc["gold"]])
        assert found["acc_norm"].margin.tolist()[place] == pytest.approx(abs(own - other))
    assert found["prob"].correct.isna().all()


def test_a_share_that_should_be_low_counts_no_right_answers(make_context: MakeContext, folder: Path) -> None:
    """lm-eval's crows_pairs: its target is the stereotyped sentence, whose probability is no score."""
    low = CHOICE.partition("metric_list")[0] + "metric_list:\n  - {metric: acc, higher_is_better: false}\n"
    (folder / "choice.yaml").write_text(low)
    measured = measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder)))
    (metric,) = measured.metrics
    assert (metric.id, metric.higher_is_better) == ("tasks/tiny_choice/acc", False)
    assert measured.items.correct.isna().all()


def test_share_and_limit_take_leading_items(make_context: MakeContext, folder: Path) -> None:
    limited = measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder), limit=3))
    shared = measure(make_context("tasks", share=0.5, tasks=["tiny_choice"], include_path=str(folder)))
    assert limited.metrics[0].n == 3
    assert shared.metrics[0].n == 2
    assert set(shared.items.item_id) < set(limited.items.item_id)


def test_fewshot_has_an_id_of_its_own(make_context: MakeContext, folder: Path) -> None:
    text = CHOICE.replace("tiny_choice", "tiny_shots") + "fewshot_split: test\n"
    (folder / "shots.yaml").write_text(text)
    measured = measure(make_context("tasks", tasks=["tiny_shots"], include_path=str(folder), num_fewshot=1))
    assert measured.metrics[0].id == "tasks/tiny_shots/acc@1shot"
    assert "1-shot" in measured.metrics[0].protocol


def test_a_question_is_no_example_of_itself(make_context: MakeContext, folder: Path) -> None:
    """A task with nothing but its questions takes examples from these; three of four are the others."""
    context = make_context("tasks", tasks=["tiny_choice"], include_path=str(folder), num_fewshot=3)
    sent: list[str] = []
    score = context.worker.score
    context.worker.score = lambda sequences, *rest: (  # type: ignore[method-assign]
        sent.extend(context.tokenizer.decode(ids) for ids in sequences) or score(sequences, *rest)
    )
    measure(context)
    assert len(sent) == 8
    assert all(text.count(str(doc["q"])) == 1 for text in sent for doc in DOCS)


def test_more_examples_than_there_are(make_context: MakeContext, folder: Path) -> None:
    with pytest.raises(UserError, match=r"'tiny_choice' has no 4 examples .allowed: num_fewshot = 0 to 3"):
        measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder), num_fewshot=4))


def test_another_data_file_is_read_whatever_its_time_of_change(folder: Path) -> None:
    """Archives that are made to be the same bytes give every file one time."""
    from awqbench.suites.task_loading import documents_of, load_tasks

    found = []
    for gold in (0, 1):
        (folder / "docs.jsonl").write_text("".join(json.dumps({**doc, "gold": gold}) + "\n" for doc in DOCS))
        os.utime(folder / "docs.jsonl", (1e9, 1e9))
        with quiet():
            documents = documents_of(load_tasks(["tiny_choice"], str(folder), None, 0))["tiny_choice"]
        found.append({document["gold"] for document in documents})
    assert found == [{0}, {1}]


def test_groups_and_tags_are_their_tasks(make_context: MakeContext, folder: Path) -> None:
    (folder / "tagged.yaml").write_text("tag: tiny_tag" + CHOICE.replace("tiny_choice", "tiny_tagged"))
    (folder / "group.yaml").write_text("group: tiny_group\ntask: [tiny_choice, tiny_generate]\n")
    measured = measure(make_context("tasks", tasks=["tiny_group", "tiny_tag"], include_path=str(folder), limit=1))
    assert {metric.id.split("/")[1] for metric in measured.metrics} == {
        "tiny_choice+1", "tiny_generate+1", "tiny_tagged+1",
    }  # fmt: skip


def test_own_task_loads_and_is_quiet(make_context: MakeContext, capfd: pytest.CaptureFixture[str]) -> None:
    measured = measure(make_context("tasks", tasks=["awqbench_commonplace"], limit=8))
    assert [metric.id for metric in measured.metrics] == [
        "tasks/awqbench_commonplace+8/acc",
        "tasks/awqbench_commonplace+8/acc_norm",
        "tasks/awqbench_commonplace+8/prob",
    ]
    assert measured.items.item_id.is_unique is False
    assert measured.items.groupby("metric").item_id.nunique().tolist() == [8, 8, 8]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_sampling_is_refused(make_context: MakeContext, folder: Path) -> None:
    (folder / "generate.yaml").write_text(GENERATE % ("~", "true"))
    with pytest.raises(UserError, match="greedy decoding only"):
        measure(make_context("tasks", tasks=["tiny_generate"], include_path=str(folder)))


SHOTS = """
fewshot_split: test
fewshot_config: {sampler: first_n}
"""
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


@pytest.mark.parametrize(
    ("keys", "id", "prompt"),
    [
        ({}, "acc", "The sky is"),
        ({"system_instruction": "Be brief."}, "acc+system-213c22", "Be brief.The sky is"),
        ({"num_fewshot": 1}, "acc@1shot", "Two and two make four\n\nThe sky is"),
        (
            {"apply_chat_template": True, "system_instruction": "Be brief."},
            "acc+chat+system-213c22",
            "<system>Be brief.<user>The sky is<bot>",
        ),
        (
            {"apply_chat_template": True, "num_fewshot": 1},
            "acc@1shot+chat",
            "<user>Two and two make<assistant>four<user>The sky is<bot>",
        ),
        (
            {"apply_chat_template": True, "num_fewshot": 1, "fewshot_as_multiturn": False},
            "acc@1shot+chat+one-turn",
            "<user>Two and two make four\n\nThe sky is<bot>",
        ),
    ],
)
def test_how_a_question_is_put(
    make_context: MakeContext, folder: Path, keys: dict[str, Any], id: str, prompt: str
) -> None:
    """What the worker is sent, in full: examples, system prompt and chat template as lm-eval composes them."""
    (folder / "put.yaml").write_text(CHOICE.replace("tiny_choice", "tiny_put") + SHOTS)
    context = make_context("tasks", tasks=["tiny_put"], include_path=str(folder), limit=2, **keys)
    context.tokenizer.chat_template = TEMPLATE
    try:
        sent: list[str] = []
        score = context.worker.score
        context.worker.score = lambda sequences, *rest: (  # type: ignore[method-assign]
            sent.extend(context.tokenizer.decode(ids) for ids in sequences) or score(sequences, *rest)
        )
        measured = measure(context)
    finally:
        context.tokenizer.chat_template = None
    assert measured.metrics[0].id == f"tasks/tiny_put+2/{id}"
    space = "" if "chat" in id else " "
    assert {f"{prompt}{space}{choice}" for choice in DOCS[1]["choices"]} <= set(sent), sent


def test_chat_template_that_is_not_there(make_context: MakeContext, folder: Path) -> None:
    with pytest.raises(UserError, match="no chat template"):
        measure(make_context("tasks", tasks=["tiny_choice"], include_path=str(folder), apply_chat_template=True))


def test_missing_data_is_named(make_context: MakeContext, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    text = CHOICE.replace("tiny_choice", "tiny_lost").replace("docs.jsonl", "$NOT_THERE/lost.jsonl")
    (folder / "lost.yaml").write_text(text)
    with pytest.raises(UserError, match=r"tiny_lost.*NOT_THERE"):
        measure(make_context("tasks", tasks=["tiny_lost"], include_path=str(folder)))


BROKEN = {
    "test_split: test": ("test_split: tst", "cannot be loaded: KeyError: 'tst'"),
    "output_type:": ("process_docs: !function code.gone\noutput_type:", "cannot be loaded: ModuleNotFoundError.*gone"),
    "generation_kwargs:": (
        "process_docs: !function empty.nothing\ngeneration_kwargs:",
        r"cannot be loaded: IndexError: .* \(has it no documents\?\)",
    ),
    "doc_to_text:": ("unsafe_code: true\ndoc_to_text:", "runs the code that a model writes"),
    "doc_to_target:": ("doc_to_image: q\ndoc_to_target:", "shows images or sounds"),
    "metric: exact_match": ("metric: exactly", "asks for the metric 'exactly'"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_task_that_cannot_be_asked_is_refused_when_it_is_loaded(folder: Path, line: str) -> None:
    """And costs no other task of its folder anything. Before, the run ended in a traceback, some after hours."""
    from awqbench.suites.task_loading import load_tasks

    other, message = BROKEN[line]
    text = (GENERATE % ("~", "false")).replace("tiny_generate", "tiny_broken").replace(line, other)
    (folder / "broken.yaml").write_text(text)
    (folder / "code.py").write_text("import gone_for_good as gone\n")
    (folder / "empty.py").write_text("def nothing(documents):\n    return documents.select([])\n")
    with quiet():
        assert load_tasks(["tiny_choice"], str(folder), None, 0)
        with pytest.raises(UserError, match=f"'tiny_broken' {message}"):
            load_tasks(["tiny_broken"], str(folder), None, 0)


def test_include_path_must_be_a_folder(make_context: MakeContext) -> None:
    with pytest.raises(UserError, match="not a folder"):
        measure(make_context("tasks", tasks=["x"], include_path="/nowhere/at/all"))


def test_a_file_that_is_no_yaml_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from awqbench.suites import task_loading as loading

    only_local = lambda folders, _: loading.TaskManager(include_path=list(folders), include_defaults=False)  # noqa: E731
    monkeypatch.setattr(loading, "_with_defaults", only_local)
    (folder / "no.yaml").write_text("task: [no\n")
    with quiet(), pytest.raises(UserError, match=r"no\.yaml is no task"):
        loading.load_tasks(["no"], str(folder), None, 0)


@pytest.mark.slow
def test_unknown_task_names_near_ones(make_context: MakeContext) -> None:
    """Slow because lm-eval's 14,000 names are read before a name is called unknown."""
    with pytest.raises(UserError, match=r"did you mean .*'awqbench_commonplace'"):
        measure(make_context("tasks", tasks=["awqbench_commonplac"]))
