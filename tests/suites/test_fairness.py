"""The fairness suite on a tiny real model, and its group measures on hand-made answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.suites.base import Context
from awqbench.suites.fairness import crossed, measure
from awqbench.suites.fairness_groups import Answer, group_measures, label_rates
from awqbench.suites.fairness_sets import load_set

MakeContext = Callable[..., Context]


def rows(**scores_by_group: list[float]) -> list[dict[str, Any]]:
    return [{"score": score, "group_g": group} for group, scores in scores_by_group.items() for score in scores]


def test_gap_and_worst_group_by_hand() -> None:
    detail, metrics = group_measures("s", "accuracy", rows(a=[1, 1, 1, 0], b=[1, 0, 0, 0], c=[0]), "p", 4)
    assert detail["g"]["by_group"] == {
        "a": {"value": 0.75, "n": 4},
        "b": {"value": 0.25, "n": 4},
        "c": {"value": 0.0, "n": 1},
    }
    assert detail["g"]["too_few"] == ["c"]
    assert {metric.id: (metric.value, metric.n) for metric in metrics} == {
        "fairness/s/gap[g]": (0.5, 8),
        "fairness/s/worst-group-accuracy[g]": (0.25, 8),
    }
    assert detail["g"]["ratio"] == pytest.approx(1 / 3)
    assert detail["g"]["worst"] == "b"
    assert all(metric.pairing == "none" for metric in metrics)


def test_one_large_group_is_no_comparison() -> None:
    detail, metrics = group_measures("s", "accuracy", rows(a=[1.0] * 9, b=[0.0]), "p", 5)
    assert metrics == []
    assert detail["g"]["difference"] is None
    assert detail["g"]["by_group"]["b"] == {"value": 0.0, "n": 1}


def test_groups_that_are_all_wrong_have_no_ratio() -> None:
    detail, _ = group_measures("s", "accuracy", rows(a=[0.0] * 3, b=[0.0] * 3), "p", 2)
    assert detail["g"]["ratio"] is None
    assert detail["g"]["difference"] == 0.0


def test_items_without_the_attribute_are_left_out() -> None:
    mixed = [*rows(a=[1, 1], b=[0, 1]), {"score": 0.0, "group_other": "x"}]
    detail, _ = group_measures("s", "accuracy", mixed, "p", 2)
    assert sum(row["n"] for row in detail["g"]["by_group"].values()) == 4


def test_preferences_have_a_gap_and_no_worst_group() -> None:
    _, metrics = group_measures("s", "stereotype-preference", rows(a=[1, 1], b=[0, 0.5]), "p", 2)
    assert [metric.id for metric in metrics] == ["fairness/s/gap[g]"]


def test_rates_of_the_stereotyped_answer_by_hand() -> None:
    """Group a: given 1 of 2 where right, 1 of 3 where wrong. Group b: 0 of 1 and 2 of 2; one item has none."""
    groups = list("aaaaabbbb")
    answers: list[Answer | None] = [
        *(Answer(right=True, given=given) for given in (True, False)),
        *(Answer(right=False, given=given) for given in (True, False, False)),
        Answer(right=True, given=False),
        *(Answer(right=False, given=True) for _ in range(2)),
        None,
    ]
    rates = label_rates(groups, answers, 2)
    assert rates["selection_rate"]["by_group"] == {
        "a": {"value": pytest.approx(2 / 5), "n": 5},
        "b": {"value": pytest.approx(2 / 3), "n": 3},
    }
    assert rates["false_positive_rate"]["by_group"] == {
        "a": {"value": pytest.approx(1 / 3), "n": 3},
        "b": {"value": 1.0, "n": 2},
    }
    assert rates["false_negative_rate"]["by_group"] == {"a": {"value": 0.5, "n": 2}, "b": {"value": 1.0, "n": 1}}
    assert rates["false_positive_rate"]["difference"] == pytest.approx(2 / 3)
    assert rates["false_positive_rate"]["ratio"] == pytest.approx(1 / 3)
    # b has one item where the stereotyped answer is right: shown, not compared.
    assert rates["false_negative_rate"]["difference"] is None
    assert label_rates(["a"], [None], 2) == {}


def test_intersections() -> None:
    sets = [load_set("counterfactual")]
    (made,) = crossed(sets, ["gender&origin"])
    assert made.items[0].groups == {"gender": "female", "origin": "English", "gender & origin": "female & English"}
    assert "gender & origin" not in made.items[-1].groups  # whose family has neither
    assert [item.item_id for item in made.items] == [item.item_id for item in sets[0].items]
    with pytest.raises(UserError, match="'gender & height' fits none of the sets"):
        crossed(sets, ["gender & height"])


def test_intersections_are_measured(make_context: MakeContext) -> None:
    measured = measure(make_context("fairness", limit=60, min_group=2, intersections=["gender & origin"]))
    assert measured.items["group_gender & origin"].nunique() == 10
    assert "fairness/counterfactual+60/gap[gender & origin]" in {metric.id for metric in measured.metrics}


def test_texts(make_context: MakeContext, tmp_path: Path) -> None:
    """On a model with a token per byte, nats per token are nats per byte, and perplexity is their exponential."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"Some {name}.\nMore of {name}.\n")
    measured = measure(make_context("fairness", sets=[f"prompts:{tmp_path}"], min_group=2))
    by_id = {metric.id.rpartition("/")[2]: metric for metric in measured.metrics}
    assert set(by_id) == {"perplexity", "nats-per-byte", "gap[group]"}
    assert by_id["perplexity"].value == pytest.approx(math.exp(by_id["nats-per-byte"].value or 0))
    assert set(measured.items.group_group) == {"a", "b"}


def test_counterfactual(make_context: MakeContext) -> None:
    seen: list[tuple[int, int]] = []
    context = make_context("fairness", sets=["counterfactual"], limit=90, min_group=2)
    context.progress = lambda done, total: seen.append((done, total))
    measured = measure(context)
    accuracy, *by_group = measured.metrics
    assert accuracy.id == "fairness/counterfactual+90/accuracy"
    assert accuracy.n == len(measured.items) == 90
    assert accuracy.value == pytest.approx(measured.items.score.mean())
    assert {metric.id for metric in by_group} >= {
        "fairness/counterfactual+90/gap[gender]",
        "fairness/counterfactual+90/worst-group-accuracy[religion]",
    }
    assert {"group_gender", "group_origin", "group_age", "group_disability"} <= set(measured.items.columns)
    assert seen[-1] == (max(total for _, total in seen),) * 2
    assert (measured.items.correct == (measured.items.prediction == measured.items.gold)).all()


def test_share_is_a_part_of_the_same_items(make_context: MakeContext) -> None:
    whole = measure(make_context("fairness", limit=60)).items
    part = measure(make_context("fairness", limit=60, share=0.5)).items
    assert set(part.item_id) < set(whole.item_id)
    assert part.merge(whole, on="item_id").eval("score_x == score_y").all()


def test_preference_by_hand(make_context: MakeContext, tmp_path: Path) -> None:
    """The score says which of the two sentences the model finds likelier; equal sentences are a tie."""
    header = ",sent_more,sent_less,stereo_antistereo,bias_type\n"
    lines = ["0,aaaa,zzzz,stereo,age", "1,zzzz,aaaa,stereo,age", "2,same,same,antistereo,age"]
    (tmp_path / "pairs.csv").write_text(header + "\n".join(lines) + "\n")
    context = make_context("fairness", sets=[f"crows-pairs:{tmp_path}"])
    measured = measure(context)
    (metric,) = measured.metrics
    assert metric.id == "fairness/crows-pairs/stereotype-preference"
    assert metric.higher_is_better is None
    by_item = measured.items.set_index("item_id").score
    assert by_item["crows-pairs/0"] + by_item["crows-pairs/1"] == 1.0
    assert by_item["crows-pairs/2"] == 0.5
    assert measured.items.correct.isna().all()


def test_bbq_has_its_own_measures(make_context: MakeContext, data_dir: Path) -> None:
    measured = measure(make_context("fairness", sets=[f"bbq:{data_dir / 'bbq'}"], limit=40))
    ids = [metric.id for metric in measured.metrics]
    assert {
        "fairness/bbq+40/accuracy",
        "fairness/bbq+40/accuracy@ambiguous",
        "fairness/bbq+40/bias@disambiguated",
    } <= set(ids)
    assert not measured.items.duplicated(["metric", "item_id"]).any()
    by_id = {metric.id: metric for metric in measured.metrics}
    for metric in ("accuracy", "accuracy@ambiguous", "unknown-rate@ambiguous", "bias@ambiguous"):
        kept = measured.items[measured.items.metric == f"fairness/bbq+40/{metric}"]
        assert by_id[f"fairness/bbq+40/{metric}"].value == pytest.approx(kept.score.mean())
