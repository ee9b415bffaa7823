"""The comparison table: what is joined, what is computed, and that it is the same every time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.compare import Cell, compare_tables
from awqbench.record.schema import CellResult, Comparison, Difference, Metric
from awqbench.stats import mde
from awqbench.suites.base import item_table

ROLES = {"reference": "reference", "rtn": "control", "again": "noise"}
ACC = {"id": "tasks/a/acc", "unit": "share", "higher_is_better": True, "pairing": "difference"}
PPL = {"id": "perplexity/t@64", "unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}
KL = {"id": "divergence/t/kl", "unit": "nats per token", "higher_is_better": False, "pairing": "to-reference"}
TTFT = {"id": "latency/ttft", "unit": "s", "higher_is_better": False, "pairing": "ratio-of-medians"}
SIZE = {"id": "size/checkpoint", "unit": "bytes", "higher_is_better": False, "pairing": "none"}
GAP = {"id": "fairness/s/gap[g]", "unit": "share", "higher_is_better": False, "pairing": "none"}


def cell(
    backend: str, kind: dict[str, Any], scores: Any, *, suite: str = "s", status: str = "ok", **columns: Any
) -> Cell:
    scores = np.asarray(scores, dtype=float)
    rows = [
        {"metric": kind["id"], "item_id": f"i{i:04d}", "score": s, **{k: v[i] for k, v in columns.items()}}
        for i, s in enumerate(scores)
    ]
    metrics = [Metric(value=float(scores.mean()), n=len(scores), protocol="p", **kind)] if status == "ok" else []
    result = CellResult(
        backend=backend, suite=suite, kind="tasks", role=ROLES.get(backend, "candidate"), key="k", status=status,
        reason=None if status == "ok" else "out of memory", metrics=metrics,
    )  # fmt: skip
    return Cell(result, item_table([] if kind is SIZE else rows))


def answers(backend: str, correct: Any, **columns: Any) -> Cell:
    correct = np.asarray(correct, dtype=bool)
    return cell(backend, ACC, correct, correct=correct, **columns)


def table(*cells: Cell) -> Comparison:
    return compare_tables(cells, "reference", "again")


def row(comparison: Comparison, candidate: str, baseline: str = "reference") -> Difference:
    return next(d for d in comparison.differences if (d.candidate, d.baseline) == (candidate, baseline))


def test_accuracy_with_flips_both_ways() -> None:
    before = np.r_[np.ones(60), np.zeros(40)]
    after = before.copy()
    after[:9] = 0
    after[60] = 1
    guess = ["A"] * 100
    other = [*(["A"] * 98), "B", "B"]
    found = row(table(answers("reference", before, prediction=guess), answers("awq", after, prediction=other)), "awq")
    assert found.delta == pytest.approx(-0.08)
    assert found.delta_unit == "share"
    assert (found.baseline_value, found.candidate_value) == (0.6, 0.52)
    assert found.flips is not None
    assert found.flips.model_dump() == {"n": 100, "correct_to_wrong": 9, "wrong_to_correct": 1, "wrong_to_wrong": 2}
    assert found.test == "exact McNemar"
    assert found.p == pytest.approx(22 / 1024)
    assert found.mde == pytest.approx(2.80 * math.sqrt(0.1 / 100), rel=0.001)
    assert found.ci_low is not None
    assert found.ci_low < -0.08 < found.ci_high < 0


def test_the_smallest_effect_of_few_clusters_is_that_of_their_t() -> None:
    """Five clusters of 40, a fifth of the answers of each flips: the test that must find it has t with 4 df."""
    before, clusters = np.ones(200), [f"c{i // 40}" for i in range(200)]
    after = np.where(np.arange(200) % 5 == 0, 0, 1)
    found = row(table(answers("reference", before, cluster=clusters), answers("awq", after, cluster=clusters)), "awq")
    assert (found.test, found.clusters) == ("score test with design effect", 5)
    assert found.mde == pytest.approx(mde(200, flips=0.2, df=4), rel=1e-6)
    assert found.mde > 1.3 * mde(200, flips=0.2)


def test_perplexity_is_a_ratio() -> None:
    rng = np.random.default_rng(0)
    before, change = rng.normal(3, 0.5, 40), rng.normal(math.log(1.1), 0.05, 40)
    found = row(table(cell("reference", PPL, before), cell("awq", PPL, before + change)), "awq")
    assert found.delta == pytest.approx(math.expm1(change.mean()))
    assert found.delta_unit == "relative"
    assert found.baseline_value == pytest.approx(math.exp(before.mean()))
    assert found.ci_low is not None
    assert 0.05 < found.ci_low < found.delta < found.ci_high < 0.15
    assert found.test == "paired t"


def test_a_distance_needs_no_reference_cell_and_is_compared_with_controls() -> None:
    rng = np.random.default_rng(0)
    own = rng.gamma(5, 0.002, 30)
    found = table(cell("awq", KL, own), cell("rtn", KL, own + 0.02), cell("again", KL, np.full(30, 1e-6)))
    against = row(found, "awq")
    assert against.delta == pytest.approx(own.mean())
    assert against.baseline_value is None
    assert against.p is None
    assert against.noise == pytest.approx(1e-6)
    assert against.within_noise is False
    assert row(found, "awq", "rtn").delta == pytest.approx(-0.02)
    assert row(found, "awq", "rtn").noise is None
    assert [(d.baseline, d.candidate) for d in found.differences] == [
        ("reference", "again"), ("reference", "awq"), ("reference", "rtn"), ("rtn", "awq"),
    ]  # fmt: skip


def test_signed_scores_that_agree_keep_an_interval() -> None:
    signed = {"id": "fairness/bbq/bias", "unit": "score", "higher_is_better": None, "pairing": "difference"}
    scores = np.tile([-1.0, 0.0, 1.0], 100)
    found = row(table(cell("reference", signed, scores), cell("awq", signed, scores)), "awq")
    assert found.delta == 0
    assert -0.03 < found.ci_low < 0 < found.ci_high < 0.03


def test_a_window_without_a_disagreement_is_not_one_draw() -> None:
    kind = {"id": "d/top1", "unit": "share of positions", "higher_is_better": False, "pairing": "to-reference"}
    assert row(table(cell("awq", kind, np.zeros(8))), "awq").ci_high == 0  # each is a mean over many positions


def test_times_are_not_paired() -> None:
    rng = np.random.default_rng(0)
    found = row(
        table(cell("reference", TTFT, rng.lognormal(0, 0.1, 30)), cell("awq", TTFT, rng.lognormal(0.5, 0.1, 50))), "awq"
    )
    assert found.delta == pytest.approx(math.expm1(0.5), rel=0.15)
    assert found.n == 30
    assert found.test == "bootstrap of the ratio of medians"
    assert found.p is not None
    assert found.p < 0.001


def test_a_single_figure_has_a_relative_change_and_no_interval() -> None:
    found = row(table(cell("reference", SIZE, [400]), cell("awq", SIZE, [100])), "awq")
    assert (found.delta, found.delta_unit, found.ci_low, found.p, found.n) == (-0.75, "relative", None, None, 1)
    assert row(table(cell("reference", SIZE, [0]), cell("awq", SIZE, [100])), "awq").delta is None


def test_single_figures_on_other_items_are_not_compared() -> None:
    whole, half = np.zeros(100), np.zeros(50)
    found = table(
        cell("reference", GAP, whole), cell("again", GAP, half), cell("awq", GAP, whole), cell("rtn", GAP, half)
    )
    assert (row(found, "again").delta, row(found, "awq").noise, row(found, "awq").within_noise) == (None, None, None)
    assert row(found, "awq").delta == 0
    assert row(found, "rtn").delta is None
    assert found.notes == [
        "awq/s fairness/s/gap[g] against rtn: fairness/s/gap[g]: 50 items against 100: not the same items",
        "rtn/s fairness/s/gap[g] against reference: fairness/s/gap[g]: 100 items against 50: not the same items",
    ]


def test_a_share_of_the_answers_that_count_is_compared_on_the_same_items() -> None:
    """BBQ's bias counts answers that are not 'unknown', so its n is the model's own; the items asked are the same."""
    cells = [cell("reference", GAP, np.zeros(100)), cell("awq", GAP, np.ones(100))]
    cells[1].result.metrics[0] = cells[1].result.metrics[0].model_copy(update={"n": 93})
    assert row(table(*cells), "awq").delta == 1


def test_the_noise_floor_is_taken_on_its_own_items() -> None:
    before = np.tile([1, 0], 100)
    again, after = before[:100].copy(), before.copy()
    again[0] = 0
    after[:2] = [0, 1]  # cancels in the mean, but flips two of 200
    found = table(answers("reference", before), answers("again", again), answers("awq", after), answers("rtn", before))
    assert row(found, "again").n == 100
    assert row(found, "again").noise is None
    assert row(found, "awq").noise == pytest.approx(-0.01)
    assert row(found, "awq").noise_flips.correct_to_wrong == 1
    assert row(found, "awq").within_noise is True  # 1 % of the items flip in both
    assert row(found, "rtn").within_noise is True
    assert found.notes == []


def test_clusters_replace_mcnemar() -> None:
    before = np.ones(200)
    after = np.r_[np.zeros(10), np.ones(190)]
    clusters = [f"c{i // 10}" for i in range(200)]
    found = row(table(answers("reference", before), answers("awq", after, cluster=clusters)), "awq")
    assert found.clusters == 20
    assert found.test == "score test with design effect"
    assert found.p > 0.1


def test_items_that_only_one_side_has_are_noted() -> None:
    found = table(answers("reference", np.ones(50)), answers("awq", np.ones(48)))
    assert row(found, "awq").n == 48
    assert "48 items both measured; 2 are only in the baseline" in found.notes[0]


def test_what_cannot_be_compared_is_left_empty_and_noted() -> None:
    found = table(
        cell("reference", PPL, [1.0, 2.0, 3.0]), cell("awq", PPL, [1.0, math.nan, 3.0]),
        cell("rtn", PPL, [], status="failed"),
        cell("reference", TTFT, [1.0], suite="t"), cell("awq", TTFT, [2.0], suite="t"),
    )  # fmt: skip
    assert row(found, "awq").delta is None
    assert any("1 of 3 values" in note for note in found.notes)
    assert "rtn/s: failed: out of memory" in found.notes
    times = next(d for d in found.differences if d.suite == "t")
    assert (times.delta, times.ci_low) == (pytest.approx(1.0), None)


def grouped() -> list[Cell]:
    rng = np.random.default_rng(0)
    n = 800
    region = np.array(list("abcd"))[np.arange(n) % 4]
    rare = ["x" if i < 5 else "y" if i < 400 else None for i in range(n)]
    before = rng.random(n) < 0.8
    after = before & ~((region == "c") & (rng.random(n) < 0.3))
    columns = {"group_region": region, "group_rare": rare, "cluster": [f"t{i // 4}" for i in range(n)]}
    return [answers("reference", before, **columns), answers("awq", after, **columns)]


def test_groups_by_difference_in_differences() -> None:
    found = table(*grouped())
    groups = {(g.attribute, g.group): g for g in found.groups}
    assert set(groups) == {("region", x) for x in "abcd"} | {("rare", "x"), ("rare", "y")}
    harmed = groups["region", "c"]
    assert harmed.n == 200
    assert harmed.clusters == 200
    assert harmed.rest_delta == 0
    assert harmed.did == harmed.delta == pytest.approx(-harmed.newly_wrong)
    assert harmed.newly_correct == 0
    assert harmed.p_adjusted < 0.001
    assert harmed.ci_low < harmed.did < harmed.ci_high < 0
    assert groups["region", "a"].did > 0  # better than the rest, which holds the harmed group
    assert not harmed.too_few
    assert groups["rare", "x"].too_few
    assert groups["rare", "x"].n + groups["rare", "y"].n == 400  # the attribute does not apply to the others


def test_groups_of_a_log_ratio_are_relative() -> None:
    rng = np.random.default_rng(0)
    domain = np.array(["law", "verse"])[np.arange(60) % 2]
    before = rng.normal(3, 0.2, 60)
    after = before + np.where(domain == "law", math.log(1.2), math.log(1.1)) + rng.normal(0, 0.01, 60)
    found = table(cell("reference", PPL, before, group_domain=domain), cell("awq", PPL, after, group_domain=domain))
    law = next(g for g in found.groups if g.group == "law")
    assert law.delta == pytest.approx(0.2, abs=0.01)
    assert law.did == pytest.approx(1.2 / 1.1 - 1, abs=0.01)


def test_a_group_whose_perplexity_no_float_holds_does_not_end_the_comparison() -> None:
    """Per word, of documents without spaces among others: the exponential ended in an OverflowError."""
    rng = np.random.default_rng(0)
    spaceless = np.arange(40) % 8 == 0
    scores = np.where(spaceless, 3000 + 300 * rng.random(40), 4.0 + rng.random(40))
    columns = {"group_language": np.where(spaceless, "Chinese", "English"), "cluster": np.arange(40).astype(str)}
    worse = scores + np.where(spaceless, 400 * rng.random(40), 0.1 * rng.random(40))
    found = table(cell("reference", PPL, scores, **columns), cell("awq", PPL, worse, **columns))
    assert {group.group for group in found.groups} == {"Chinese", "English"}
    assert all(math.isfinite(group.ci_high) for group in found.groups if group.ci_high is not None)


def test_adjusted_p_leaves_the_noise_floor_out() -> None:
    before = np.ones(100)
    cells = [answers("reference", before), answers("again", before)]
    cells += [answers(f"awq{i}", np.r_[np.zeros(i * 3), np.ones(100 - 3 * i)]) for i in range(1, 5)]
    found = table(*cells)
    assert row(found, "again").p_adjusted is None
    rows = [row(found, f"awq{i}") for i in range(1, 5)]
    assert all(d.p <= d.p_adjusted <= 4 * d.p for d in rows)


def test_another_backend_may_be_the_baseline() -> None:
    cells = [
        answers("reference", np.ones(60)),
        answers("awq", np.ones(60)),
        answers("rtn", np.r_[np.zeros(6), np.ones(54)]),
    ]
    found = compare_tables(cells, "rtn", None)
    assert [(d.baseline, d.candidate) for d in found.differences] == [("rtn", "awq")]
    assert found.differences[0].delta == pytest.approx(0.1)


@given(st.permutations(range(4)), st.integers(0, 100))
@settings(max_examples=8, deadline=None)
def test_the_same_bytes_whatever_the_order(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [
        *grouped(),
        cell("reference", TTFT, [1.0, 1.1, 1.2], suite="t"),
        cell("awq", TTFT, [2.0, 2.1, 2.2], suite="t"),
    ]
    shuffled = [Cell(c.result, c.items.sample(frac=1, random_state=int(rng.integers(99)))) for c in cells]
    assert table(*[shuffled[i] for i in order]).model_dump_json() == table(*cells).model_dump_json()


def test_single_shares_change_in_points_and_sizes_by_a_ratio() -> None:
    from awqbench.compare.differences import _delta_unit
    from awqbench.record.schema import Metric

    def unit(name: str) -> str:
        return _delta_unit(Metric(id="m", value=1.0, unit=name, n=1, protocol="p", pairing="none"))

    assert (unit("share"), unit("score"), unit("bytes"), unit("seconds")) == ("share", "score", "relative", "relative")
