"""What the sections ask of a run."""

from __future__ import annotations

import pytest

from awqbench.record.reader import Run
from awqbench.record.schema import Difference
from awqbench.report import select


def _difference(**more: object) -> Difference:
    given = {
        "suite": "tasks", "metric": "tasks/t/acc", "protocol": "", "unit": "share", "higher_is_better": True,
        "pairing": "difference", "baseline": "reference", "candidate": "awq", "role": "candidate", "n": 40,
        "baseline_value": 0.6, "candidate_value": 0.5, "delta": -0.1, "delta_unit": "share", "ci_low": -0.2,
        "ci_high": -0.05,
    }  # fmt: skip
    return Difference.model_validate({**given, **more})


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "worse"),
        ({"higher_is_better": False}, "better"),
        ({"higher_is_better": None}, "changed"),
        ({"pairing": "to-reference", "baseline_value": None}, "differs"),
        ({"pairing": "to-reference", "higher_is_better": False}, "better"),
        ({"ci_high": 0.01}, "no difference shown"),
        ({"within_noise": True}, "within the noise floor"),
        ({"delta": None}, "unmeasured"),
        ({"delta": 0.0, "ci_low": None, "ci_high": None}, "the same"),
        ({"delta": 0.1, "ci_low": None, "ci_high": None}, "better"),
    ],
)
def test_effect_in_words(more: dict[str, object], word: str) -> None:
    assert select.effect(_difference(**more)) == word


def test_backends_come_reference_first_and_noise_last(run: Run) -> None:
    assert list(select.roles(run)) == ["reference", "awq", "rtn", "reference-again"]


def test_differences_are_to_the_reference_and_leave_out_the_noise_floor(run: Run) -> None:
    found = select.differences(run)
    assert {d.baseline for d in found} == {"reference"}
    assert {d.candidate for d in found} == {"awq", "rtn"}
    assert {(d.candidate, d.baseline) for d in select.head_to_head(run, "perplexity")} == {("awq", "rtn")}


def test_a_limit_is_signed_towards_worse_and_in_the_unit_of_the_difference(run: Run) -> None:
    by_metric = {(d.metric, d.candidate): d for d in select.differences(run)}
    perplexity = by_metric["perplexity/synthetic-text@1024", "awq"]
    accuracy = by_metric["tasks/synthetic_task/acc", "awq"]
    assert select.limit(run, perplexity) == pytest.approx(0.05)
    assert select.limit(run, accuracy) == pytest.approx(-0.02)
    assert select.limit(run, accuracy.model_copy(update={"delta_unit": "relative"})) == pytest.approx(-0.02 / 0.6)
    assert select.limit(run, by_metric["tasks/synthetic_task/acc", "rtn"]) is None


def test_rules_come_with_the_most_serious_first(run: Run) -> None:
    found = [select.outcome(rule) for rule in select.rules_of(run)]
    assert found == sorted(found, key=select.OUTCOMES.index)
    assert found[0] == "fail"
    assert found[-1] == "not judged"  # the group with too few items


def test_headline_takes_gated_metrics_and_the_savings(run: Run) -> None:
    chosen = [metric for _, metric in select.headline(run)]
    assert "divergence/synthetic-text@512/prefill/kl" in chosen
    assert "divergence/synthetic-text@512/prefill/top1-disagreement" not in chosen
    assert "size/checkpoint" in chosen
