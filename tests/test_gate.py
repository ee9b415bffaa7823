"""Rules to verdicts: planted harms are found and named, and what cannot be judged says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.errors import ExitCode, UserError
from awqbench.gate import exit_code, judge, policy_hash
from awqbench.record.schema import CellResult, Metric, Verdict
from awqbench.spec import GateSpec
from awqbench.suites.base import item_table

SHARE = {"unit": "share", "higher_is_better": True, "pairing": "difference"}
PPL = {"unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}
KL = {"unit": "nats per token", "higher_is_better": False, "pairing": "to-reference"}
RATE = {"unit": "tokens/s", "higher_is_better": True, "pairing": "ratio-of-medians"}
SIZE = {"unit": "bytes", "higher_is_better": False, "pairing": "none"}
GAP = {"unit": "share", "higher_is_better": False, "pairing": "none"}
ROLES = {"reference": "reference", "rtn": "control", "reference-again": "noise"}


def cell(backend: str, metric: str, scores: Any, kind: dict[str, Any], suite: str = "s", **columns: Any) -> Cell:
    scores = np.asarray(scores, dtype=float)
    rows = [
        {"metric": metric, "item_id": f"i{i:05d}", "score": s, **{k: v[i] for k, v in columns.items()}}
        for i, s in enumerate(scores)
    ]
    value = float(np.median(scores)) if kind is RATE else float(scores.mean())
    result = CellResult(
        backend=backend,
        suite=suite,
        kind="tasks",
        role=ROLES.get(backend, "candidate"),
        key="k",
        status="ok",
        metrics=[Metric(id=metric, value=value, n=len(scores), protocol="p", **kind)],
    )
    return Cell(result, item_table([] if kind is SIZE else rows))


def decide(cells: list[Cell], *gates: GateSpec, **options: Any) -> Verdict:
    comparison = compare_tables(cells, "reference", None)
    return judge(gates, cells, comparison, "reference", policy_hash=policy_hash(gates), **options)


def accuracy(flipped: int, n: int, **columns: Any) -> list[Cell]:
    """Reference all right; the candidate's first `flipped` items wrong."""
    right = np.ones(n)
    wrong = right.copy()
    wrong[:flipped] = 0
    return [
        cell("reference", "tasks/a", right, SHARE, correct=right == 1, **columns),
        cell("awq", "tasks/a", wrong, SHARE, correct=wrong == 1, **columns),
    ]


@pytest.mark.parametrize(
    ("flipped", "n", "verdict", "code"),
    [(2, 1000, "pass", 0), (150, 1000, "fail", 1), (0, 30, "inconclusive", 3), (33, 1000, "inconclusive", 3)],
)
def test_three_verdicts_and_their_exit_codes(flipped: int, n: int, verdict: str, code: int) -> None:
    result = decide(accuracy(flipped, n), GateSpec(metric="tasks/*", margin=0.03))
    assert (result.overall, exit_code(result)) == (verdict, code)
    assert result.candidates == {"awq": verdict}
    (rule,) = result.rules
    assert rule.estimate == pytest.approx(flipped / n)
    assert rule.lower < rule.estimate < rule.upper
    assert (rule.n_needed is not None) == (verdict == "inconclusive")
    assert rule.n_needed is None or rule.n_needed > n


def test_reasons_are_sentences_with_numbers_and_units() -> None:
    worse = np.log(1.098) + np.random.default_rng(0).normal(0, 0.02, 60)
    base = np.random.default_rng(1).normal(3, 0.3, 60)
    cells = [cell("reference", "perplexity/t@64", base, PPL), cell("awq", "perplexity/t@64", base + worse, PPL)]
    (rule,) = decide(cells, GateSpec(metric="perplexity/*", margin=0.05, unit="relative")).rules
    assert rule.verdict == "fail"
    assert rule.estimate == pytest.approx(np.expm1(worse.mean()))
    assert rule.reason.startswith("perplexity/t@64 is 9.")
    assert "% worse than for reference (95 % bound " in rule.reason
    assert rule.reason.endswith("limit 5 %")


def test_an_absolute_margin_on_perplexity_is_in_perplexity() -> None:
    base = np.linspace(2.9, 3.1, 40)
    shift = np.log(1.02) + np.tile([0.001, -0.001], 20)
    cells = [cell("reference", "perplexity/t", base, PPL), cell("awq", "perplexity/t", base + shift, PPL)]
    (rule,) = decide(cells, GateSpec(metric="perplexity/*", margin=0.5)).rules
    assert rule.unit == "perplexity"
    assert rule.estimate == pytest.approx(np.exp(base.mean()) * 0.02, rel=1e-3)
    assert rule.verdict == "pass"


def test_a_distance_is_its_own_loss_without_a_cell_of_the_reference() -> None:
    scores = np.random.default_rng(0).gamma(20, 0.001, 50)
    (rule,) = decide([cell("awq", "divergence/kl", scores, KL)], GateSpec(metric="divergence/*", margin=0.1)).rules
    assert rule.verdict == "pass"
    assert rule.estimate == pytest.approx(scores.mean())
    with pytest.raises(UserError, match="absolute"):
        decide([cell("awq", "divergence/kl", scores, KL)], GateSpec(metric="divergence/*", margin=0.1, unit="relative"))


def test_the_bound_of_a_distance_is_never_below_zero() -> None:
    gate = GateSpec(metric="divergence/*", margin=0.1)
    (rule,) = decide([cell("awq", "divergence/kl", np.array([0.001, 0.09]), KL)], gate).rules
    assert rule.verdict == "inconclusive"
    assert rule.lower == 0.0
    assert "between 0 nats per token and" in rule.reason


def test_throughput_loses_when_it_falls() -> None:
    rng = np.random.default_rng(0)
    fast, slow = rng.normal(100, 1, 40), rng.normal(80, 1, 40)
    cells = [cell("reference", "latency/rate", fast, RATE), cell("awq", "latency/rate", slow, RATE)]
    (rule,) = decide(cells, GateSpec(metric="latency/*", margin=0.1, unit="relative")).rules
    assert rule.verdict == "fail"
    assert rule.estimate == pytest.approx(0.2, abs=0.02)
    faster = [cell("reference", "latency/rate", slow, RATE), cell("awq", "latency/rate", fast, RATE)]
    (rule,) = decide(faster, GateSpec(metric="latency/*", margin=0.1, unit="relative")).rules
    assert rule.reason.count("% better") == 2
    (rule,) = decide(cells, GateSpec(metric="latency/*", margin=0.3, unit="relative")).rules
    assert rule.verdict == "pass"
    with pytest.raises(UserError, match="never be exceeded"):
        decide(cells, GateSpec(metric="latency/*", margin=1.0, unit="relative"))


def test_a_single_figure_is_compared_as_it_is() -> None:
    cells = [cell("reference", "size/checkpoint", [400], SIZE), cell("awq", "size/checkpoint", [100], SIZE)]
    (rule,) = decide(cells, GateSpec(metric="size/*", margin=0)).rules
    assert rule.verdict == "pass"
    assert rule.upper is None
    assert "300 bytes better" in rule.reason
    cells[1] = cell("awq", "size/checkpoint", [401], SIZE)
    assert decide(cells, GateSpec(metric="size/*", margin=0)).overall == "fail"


def test_identical_outputs_meet_a_zero_margin_only_where_they_are_strong_evidence() -> None:
    base = np.linspace(2, 4, 20)
    cells = [cell("reference", "perplexity/t", base, PPL), cell("awq", "perplexity/t", base, PPL)]
    assert decide(cells, GateSpec(metric="*", margin=0, unit="relative")).overall == "pass"
    (rule,) = decide(accuracy(0, 500), GateSpec(metric="*", margin=0)).rules
    assert (rule.verdict, rule.n_needed) == ("inconclusive", None)
    assert "no realistic number" in rule.reason


def planted() -> list[Cell]:
    """4 % of all answers flip either way; in one group of five, another 25 % turn wrong."""
    rng = np.random.default_rng(3)
    n = 2000
    group = np.array(list("abcde"))[np.arange(n) % 5]
    before = rng.random(n) < 0.7
    after = np.where(rng.random(n) < 0.04, ~before, before)
    after &= ~((group == "d") & (rng.random(n) < 0.25))
    columns = {"group_region": group, "group_rare": np.where(np.arange(n) < 7, "few", "many")}
    return [
        cell("reference", "fairness/acc", before, SHARE, correct=before, **columns),
        cell("awq", "fairness/acc", after, SHARE, correct=after, **columns),
    ]


def test_a_harm_to_one_group_is_named_while_the_average_passes() -> None:
    average = GateSpec(metric="fairness/*", margin=0.08)
    groups = GateSpec(metric="fairness/*", margin=0.05, attribute="*")
    result = decide(planted(), average, groups)
    by_group = {(rule.attribute, rule.group): rule for rule in result.rules}
    assert by_group[None, None].verdict == "pass"
    assert [key for key, rule in by_group.items() if rule.verdict == "fail"] == [("region", "d")]
    assert by_group["region", "d"].kind == "difference-in-differences"
    assert "fairness/acc for region = d lost" in by_group["region", "d"].reason
    assert exit_code(result) == ExitCode.GATE_FAILED


def test_a_group_that_is_too_small_is_listed_and_holds_nothing_up() -> None:
    result = decide(planted(), GateSpec(metric="fairness/*", margin=0.9, attribute="rare"))
    assert result.overall == "inconclusive"  # nothing could be judged: both sides need the items
    assert all("not judged: " in rule.reason and "20 are needed on each side" in rule.reason for rule in result.rules)
    result = decide(planted(), GateSpec(metric="fairness/*", margin=0.5, attribute="*"))
    assert result.overall == "pass"


def test_a_rule_whose_groups_are_all_too_small_holds_the_verdict_up() -> None:
    whole, rare = GateSpec(metric="*", margin=0.08), GateSpec(metric="*", margin=0.9, attribute="rare")
    result = decide(planted(), whole, rare)
    assert exit_code(result) == ExitCode.INCONCLUSIVE
    assert result.candidates == {"awq": "inconclusive"}
    groups = [rule for rule in result.rules if rule.group]
    assert len(groups) == 2
    assert all("not judged: too few items in every group (" in rule.reason for rule in groups)


def test_a_group_in_one_cluster_is_no_small_group() -> None:
    group = np.repeat(["a", "b", "c"], 100)
    clusters = ["passage" if name == "a" else f"i{i}" for i, name in enumerate(group)]
    scores = np.random.default_rng(0).gamma(20, 0.001, 300)
    cells = [cell("awq", "kl", scores, KL, group_region=group, cluster=clusters)]
    result = decide(cells, GateSpec(metric="*", margin=0.2, attribute="region"))
    assert {rule.group: rule.verdict for rule in result.rules} == {"a": "inconclusive", "b": "pass", "c": "pass"}
    assert result.overall == "inconclusive"


def test_holm_keeps_many_rules_from_failing_by_chance() -> None:
    rng = np.random.default_rng(5)
    cells = []
    for k in range(40):  # the true loss is exactly the margin, the hardest case
        scores = np.zeros(50), -rng.normal(0.1, 1, 50)
        cells += [cell(name, f"m{k}", x, SHARE, f"s{k}") for name, x in zip(("reference", "awq"), scores, strict=True)]
    result = decide(cells, GateSpec(metric="*", margin=0.1))
    alone = [rule for rule in result.rules if rule.p_worse < 0.05]
    assert alone
    assert result.overall == "inconclusive"
    assert all("beyond it taken alone, but not among 40 rules" in rule.reason for rule in alone)
    assert all(rule.p_holm >= rule.p_worse for rule in result.rules)


@pytest.mark.parametrize(("policy", "verdict"), [("pass", "pass"), ("fail", "fail"), ("inconclusive", "inconclusive")])
def test_a_policy_may_map_an_open_question(policy: Any, verdict: str) -> None:
    result = decide(accuracy(0, 30), GateSpec(metric="*", margin=0.03, on_inconclusive=policy))
    assert result.overall == verdict
    assert "undecided" in result.rules[0].reason


def test_controls_are_judged_only_when_named() -> None:
    cells = [*accuracy(0, 500), cell("rtn", "tasks/a", np.zeros(500), SHARE)]
    assert decide(cells, GateSpec(metric="*", margin=0.03)).candidates == {"awq": "pass"}
    assert decide(cells, GateSpec(metric="*", margin=0.03, candidates=["rtn"])).candidates == {"rtn": "fail"}
    with pytest.raises(UserError, match="awqq"):
        decide(cells, GateSpec(metric="*", margin=0.03, candidates=["awqq"]))


def test_a_rule_without_a_candidate_names_the_backends_there_are() -> None:
    cells = [accuracy(0, 500)[0], cell("rtn", "tasks/a", np.ones(500), SHARE)]
    with pytest.raises(UserError, match=r"'tasks/\*'.*reference \(reference\), rtn \(control\)"):
        decide(cells, GateSpec(metric="tasks/*", margin=0.03))


def test_brackets_in_a_pattern_are_those_of_the_metric() -> None:
    ids = ("fairness/s/gap[gender]", "fairness/s/gapg", "fairness/s/gap[age]")
    cells = [cell(name, id, np.zeros(30), GAP, id[-5]) for id in ids for name in ("reference", "awq")]
    for pattern in ("fairness/*/gap[gender]", "*gap[gen*]", "fairness/?/gap[gender]"):
        result = decide(cells, GateSpec(metric=pattern, margin=0.03))
        assert [rule.metric for rule in result.rules] == ["fairness/s/gap[gender]"]
    with pytest.raises(UserError, match="matches no metric"):
        decide(cells, GateSpec(metric="fairness/s/[gG]apg", margin=0.03))


def test_a_rule_that_fits_nothing_names_what_there_is() -> None:
    with pytest.raises(UserError, match="tasks/a"):
        decide(accuracy(0, 50), GateSpec(metric="task/*", margin=0.03))
    with pytest.raises(UserError, match="region"):
        decide(planted(), GateSpec(metric="*", margin=0.03, attribute="regoin"))
    with pytest.raises(UserError, match="cluster by"):
        decide(accuracy(0, 50), GateSpec(metric="*", margin=0.03, cluster="template"))


def test_a_metric_without_a_better_side_needs_a_two_sided_rule() -> None:
    rng = np.random.default_rng(0)
    kind = {"unit": "share", "higher_is_better": None, "pairing": "difference"}
    before = rng.random(800) < 0.5
    after = np.where(rng.random(800) < 0.3, True, before)
    cells = [cell("reference", "stereotype", before, kind), cell("awq", "stereotype", after, kind)]
    with pytest.raises(UserError, match="two"):
        decide(cells, GateSpec(metric="*", margin=0.05))
    assert decide(cells, GateSpec(metric="*", margin=0.05, sided="two")).overall == "fail"
    swapped = [cell("reference", "stereotype", after, kind), cell("awq", "stereotype", before, kind)]
    assert decide(swapped, GateSpec(metric="*", margin=0.05, sided="two")).overall == "fail"
    assert decide(swapped, GateSpec(metric="*", margin=0.3, sided="two")).overall == "pass"


@pytest.mark.parametrize("kind", [RATE, {**RATE, "unit": "s", "higher_is_better": False}, PPL])
def test_two_sides_are_as_far_apart_as_the_rule_says(kind: dict[str, Any]) -> None:
    """10 % less is farther than 10 % more in logarithms, on which ratios are tested."""
    spread = np.linspace(-0.002, 0.002, 60)
    for change in (-0.105, -0.096, 0.096, 0.105):
        logs = {"reference": spread, "awq": spread[::-1] + np.log1p(change)}
        cells = [cell(name, "m", x if kind is PPL else np.exp(x), kind) for name, x in logs.items()]
        (rule,) = decide(cells, GateSpec(metric="*", margin=0.1, unit="relative", sided="two")).rules
        assert rule.verdict == ("fail" if abs(change) > 0.1 else "pass"), rule.reason
        (rule,) = decide(cells, GateSpec(metric="*", margin=0.9, unit="relative", sided="two")).rules
        assert rule.verdict == "pass"


@pytest.mark.parametrize("broken", ["reference", "awq"])
def test_a_failed_cell_makes_the_measurement_invalid(broken: str) -> None:
    cells = accuracy(0, 500)
    if broken == "reference":
        cells.append(cell("awq", "tasks/b", np.ones(500), SHARE, "t"))
    else:
        cells.append(cell("reference", "tasks/b", np.ones(500), SHARE, "t"))
    lost = CellResult(
        backend=broken,
        suite="t",
        kind="tasks",
        role=ROLES.get(broken, "candidate"),
        key="k",
        status="failed",
        reason="out of memory",
    )
    result = decide([*cells, Cell(lost, item_table([]))], GateSpec(metric="tasks/*", margin=0.03))
    assert exit_code(result) == ExitCode.MEASUREMENT_FAILED
    assert result.overall == "inconclusive"
    assert result.candidates == {"awq": "inconclusive"}
    assert len(result.invalid) == 1
    assert ("out of memory" if broken == "awq" else "reference has no figure") in result.invalid[0]


def test_nothing_goes_unjudged_in_silence() -> None:
    cells = accuracy(0, 500)
    cells.append(cell("reference", "tasks/b", np.ones(500), SHARE, "t"))
    cells.append(cell("awq", "other/b", np.ones(500), SHARE, "t"))
    result = decide(cells, GateSpec(metric="tasks/*", margin=0.03))
    assert result.invalid == ["awq/t: tasks/b: measured for the reference only"]
    lost = CellResult(
        backend="awq", suite="s", kind="tasks", role="candidate", key="k", status="failed", reason="killed"
    )
    result = decide([Cell(lost, item_table([]))], GateSpec(metric="tasks/*", margin=0.03))
    assert (result.invalid, result.candidates) == (["awq/s: failed: killed"], {"awq": "inconclusive"})
    assert exit_code(result) == ExitCode.MEASUREMENT_FAILED


@pytest.mark.parametrize("pattern", ["tasks/*", "*", "tasks/?"])
@pytest.mark.parametrize(("status", "verdict"), [("failed", 4), ("skipped", 3), ("not_applicable", 3)])
def test_a_suite_that_nobody_could_measure_is_not_let_off_beside_one_that_passes(
    pattern: str, status: Any, verdict: int
) -> None:
    def lost(backend: str, kind: str = "tasks", suite: str = "t") -> Cell:
        role = ROLES.get(backend, "candidate")
        result = CellResult(backend=backend, suite=suite, kind=kind, role=role, key="k", status=status, reason="why")
        return Cell(result, item_table([]))

    gate = GateSpec(metric=pattern, margin=0.03, optional=True)
    for cells in ([lost("reference"), lost("awq")], [lost("awq")]):  # a divergence has no cell of the reference
        found = decide([*accuracy(2, 1000), *cells], gate)
        assert (found.overall, found.candidates, exit_code(found)) == ("inconclusive", {"awq": "inconclusive"}, verdict)
        assert [line.partition(" (")[0] for line in found.invalid + found.unjudged] == [f"awq/t: {status}: why"]
    assert decide([*accuracy(2, 1000), lost("awq")], GateSpec(metric="tasks/a", margin=0.03)).overall == "pass"
    others = [lost("reference"), lost("rtn"), *([lost("awq", "perplexity", "u")] if pattern != "*" else [])]
    assert decide([*accuracy(2, 1000), *others], gate).overall == "pass"


@pytest.mark.parametrize("status", ["skipped", "not_applicable"])
def test_a_limit_that_an_engine_cannot_be_held_to_leaves_it_undecided(status: Any) -> None:
    cells = accuracy(2, 1000)
    result = cells[1].result.model_copy(
        update={"backend": "vllm", "status": status, "reason": "awqbench env create vllm", "metrics": []}
    )
    found = decide([*cells, Cell(result, item_table([]))], GateSpec(metric="tasks/*", margin=0.03))
    assert (found.invalid, found.candidates) == ([], {"awq": "pass", "vllm": "inconclusive"})
    assert found.unjudged == [f"vllm/s: {status}: awqbench env create vllm (limit on tasks/*)"]
    assert (found.overall, exit_code(found)) == ("inconclusive", ExitCode.INCONCLUSIVE)
    named = decide([*cells, Cell(result, item_table([]))], GateSpec(metric="tasks/*", margin=0.03, candidates=["awq"]))
    assert (named.overall, named.unjudged) == ("pass", [])


@pytest.mark.parametrize("lacking", [("awq",), ("reference", "awq")])
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("pattern", ["tasks/*", "tasks/lost", "tasks/?ost"])
def test_a_limit_on_a_task_that_was_not_measured_is_undecided(
    pattern: str, optional: bool, lacking: tuple[str, ...]
) -> None:
    """Whatever the others of its cell say."""
    why = "lost was not measured: a question of 900 tokens does not fit"
    cells = accuracy(0, 1000)
    for each in cells:
        if each.result.backend in lacking:
            each.result.unmeasured = {"tasks/lost": why}
        else:
            each.result.metrics += [Metric(id="tasks/lost", value=1.0, n=1, protocol="p", **SHARE)]
    result = decide(cells, GateSpec(metric=pattern, margin=0.03, optional=optional))
    assert (result.overall, exit_code(result)) == ("inconclusive", 3)
    assert result.candidates == {"awq": "inconclusive"}
    assert result.unjudged == [f"awq/s: {why} (limit on {pattern})"]
    assert (result.invalid, result.not_applicable) == ([], [])
    assert [rule.metric for rule in result.rules] == (["tasks/a"] if pattern == "tasks/*" else [])
    assert f"awq/s: {why}" in compare_tables(cells, "reference", None).notes
    others = decide(cells, GateSpec(metric="tasks/a", margin=0.03))
    assert (others.overall, others.unjudged) == ("pass", [])


def test_a_baseline_that_lacks_a_task_leaves_it_to_this_runs_reference() -> None:
    earlier, cells = accuracy(0, 1000), accuracy(0, 1000)
    earlier[1].result.unmeasured = {"tasks/a": "a was not measured: it was too long"}
    earlier[1].result.metrics = []
    found = decide(cells, GateSpec(metric="tasks/a", margin=0.03), baseline_cells=earlier)
    assert found.overall == "pass"
    assert "for reference" in found.rules[0].reason


def test_a_distance_that_is_only_bounded_meets_no_limit() -> None:
    full = cell("awq", "divergence/t@64/prefill/kl", np.full(40, 0.01), KL)
    bounded = cell("server", "divergence/t@64/prefill/kl-top20-lower-bound", np.full(40, 0.01), KL)
    found = decide([full, bounded], GateSpec(metric="divergence/*/kl", margin=0.1))
    assert found.candidates == {"awq": "pass", "server": "inconclusive"}
    assert found.unjudged == ["server/s: no figure of this engine matches the limit on divergence/*/kl"]


def test_a_rule_on_a_candidate_that_its_suite_leaves_out_is_not_dropped_in_silence() -> None:
    cells = [*accuracy(2, 1000), cell("vllm", "other/b", np.ones(500), SHARE, "t")]
    for gate in (GateSpec(metric="tasks/*", margin=0.03, candidates=["vllm"]), GateSpec(metric="other/*", margin=0.03)):
        left_out = cells if gate.candidates else [*accuracy(2, 1000), cell("rtn", "other/b", np.ones(9), SHARE, "t")]
        found = decide(left_out, GateSpec(metric="tasks/*", margin=0.03), gate)
        assert (found.overall, exit_code(found)) == ("inconclusive", ExitCode.INCONCLUSIVE)
        name, suite = ("vllm", "s") if gate.candidates else ("awq", "t")
        assert found.unjudged == [f"{name}: not measured on {suite} (limit on {gate.metric})"]
    assert decide(cells, GateSpec(metric="tasks/*", margin=0.03)).overall == "pass"


def test_scores_that_are_not_numbers_are_invalid() -> None:
    cells = [
        cell("reference", "perplexity/t", np.ones(20), PPL),
        cell("awq", "perplexity/t", [np.nan] + [1.0] * 19, PPL),
    ]
    result = decide(cells, GateSpec(metric="*", margin=0.03, unit="relative"))
    assert exit_code(result) == ExitCode.MEASUREMENT_FAILED
    assert "1 of 20 values" in result.invalid[0]


def test_an_earlier_run_of_the_same_candidate_is_a_baseline() -> None:
    earlier, now = accuracy(100, 1000), accuracy(102, 1000)
    gate = GateSpec(metric="*", margin=0.02)
    assert decide(now, gate).overall == "fail"
    result = decide(now, gate, baseline_cells=earlier)
    assert result.overall == "pass"
    assert result.rules[0].estimate == pytest.approx(0.002)
    with pytest.raises(UserError, match="500 items of tasks/a and this run 1000, of which 500"):
        decide(now, gate, baseline_cells=accuracy(50, 500))


def test_an_earlier_run_whose_candidate_failed_is_held_by_its_own_reference() -> None:
    """It was held against today's reference, and nothing said so."""
    now = accuracy(30, 1000)
    before = cell("reference", "tasks/a", np.r_[np.zeros(30), np.ones(970)], SHARE)
    failed = Cell(now[1].result.model_copy(update={"status": "failed", "metrics": []}), item_table([]))
    (rule,) = decide(now, GateSpec(metric="tasks/*", margin=0.03), baseline_cells=[failed, before]).rules
    assert (rule.estimate, rule.verdict) == (0, "pass")
    assert "reference in the baseline" in rule.reason


def test_what_was_measured_earlier_is_named_as_such() -> None:
    earlier, now = accuracy(0, 1000), accuracy(100, 1000)
    (rule,) = decide(now, GateSpec(metric="*", margin=0.02), baseline_cells=earlier).rules
    assert "worse than for awq in the baseline (" in rule.reason
    (rule,) = decide(now, GateSpec(metric="*", margin=0.02), baseline_cells=earlier[:1]).rules
    assert "worse than for reference in the baseline (" in rule.reason
    (rule,) = decide(now, GateSpec(metric="*", margin=0.02), baseline_cells=[]).rules
    assert "worse than for reference (" in rule.reason


def test_a_single_figure_on_other_items_is_no_baseline() -> None:
    now, earlier = ([cell(b, "s/gap[g]", np.zeros(n), GAP) for b in ("reference", "awq")] for n in (400, 200))
    with pytest.raises(UserError, match=r"200 items of s/gap\[g\] and this run 400"):
        decide(now, GateSpec(metric="*", margin=0.02), baseline_cells=earlier)
    other = [Cell(c.result, c.items.assign(item_id="x" + c.items["item_id"])) for c in now]
    with pytest.raises(UserError, match=r"400 items of s/gap\[g\] and this run 400: a gate needs the same items"):
        decide(now, GateSpec(metric="*", margin=0.02), baseline_cells=other)
    result = decide([now[0], earlier[1]], GateSpec(metric="*", margin=0.02))
    assert result.invalid == ["awq/s: s/gap[g]: s/gap[g]: 400 items against 200: not the same items"]


@pytest.mark.parametrize(
    ("size", "said"), [(1, "60 items measured, about {} would decide it"), (2, "60 items measured, about {} would"),
                       (3, "60 items in 20 clusters measured, at least {} are needed")]
)  # fmt: skip
@pytest.mark.parametrize("group", [None, "a"])
def test_a_plan_from_few_clusters_is_a_lower_bound(size: int, said: str, group: str | None) -> None:
    """60 items in 60, 30 and 20 clusters; of a group, as many clusters as hold its items."""
    per_group = 1 if group is None else 2
    clusters = [f"c{i // size}" for i in range(60) for _ in range(per_group)]
    columns = {"cluster": clusters} | ({"group_g": ["a", "b"] * 60} if group else {})
    gate = GateSpec(metric="tasks/*", margin=0.03, attribute="g" if group else None)
    rule = decide(accuracy(per_group, 60 * per_group, **columns), gate).rules[0]
    assert (rule.verdict, rule.group, rule.n) == ("inconclusive", group, 60)
    assert rule.n_needed is not None
    assert rule.n_needed_at_least is (size == 3)
    assert said.format(rule.n_needed) in rule.reason


@pytest.mark.parametrize("gained", [4, 20, 50])
def test_a_gain_is_planned_as_if_it_stood_alone(gained: int) -> None:
    after, clusters = np.arange(100) < gained, [f"c{i // 25}" for i in range(100)]
    cells = [cell(name, "m", x, SHARE, cluster=clusters) for name, x in (("reference", np.zeros(100)), ("awq", after))]
    gate = GateSpec(metric="*", margin=0.02)
    alone, among = (decide(cells, *[gate] * family).rules[0] for family in (1, 20))
    assert alone.n_needed is not None
    assert (among.estimate, among.n_needed) == (-gained / 100, alone.n_needed)


def test_under_zero_tolerance_the_plan_is_for_what_is_shown_first() -> None:
    """A loss near the margin: that it is there at all is shown long before that it is within, or beyond, the margin."""
    base, spread = np.linspace(2.9, 3.1, 40), np.tile([0.05, -0.05], 20)
    for loss, first in ((0.007, "loss"), (0.0097, "loss"), (0.002, "margin")):
        cells = [cell(name, "ppl", base + x, PPL) for name, x in (("reference", 0 * base), ("awq", loss + spread))]
        strict, margin, nothing = (
            decide(cells, GateSpec(metric="*", margin=m, unit="relative", zero_tolerance=z)).rules[0]
            for m, z in ((0.01, True), (0.01, False), (0.0, False))
        )
        assert (strict.verdict, margin.verdict, nothing.verdict) == ("inconclusive",) * 3
        assert strict.n_needed == {"loss": nothing, "margin": margin}[first].n_needed
        assert f"about {strict.n_needed} would decide it" in strict.reason


def test_a_stored_baseline_needs_no_predictions() -> None:
    stored = [Cell(c.result, c.items[["metric", "item_id", "cluster", "score", "correct"]]) for c in accuracy(0, 500)]
    gate = GateSpec(metric="*", margin=0.03)
    assert decide(accuracy(0, 500), gate, baseline_cells=stored).overall == "pass"
    kl = [cell("awq", "divergence/kl", np.full(30, 0.02) + np.arange(30) * 1e-4, KL)]
    assert decide(kl, gate, baseline_cells=kl).rules[0].estimate == 0


def test_the_policy_hash_is_that_of_the_rules() -> None:
    gates = [GateSpec(metric="a", margin=0.1), GateSpec(metric="b", margin=0.1)]
    assert policy_hash(gates) == policy_hash([gate.model_copy() for gate in gates])
    assert policy_hash(gates) != policy_hash([gates[0], gates[1].model_copy(update={"margin": 0.2})])


def test_no_rules_show_nothing() -> None:
    result = decide(accuracy(0, 30))
    assert result.overall == "inconclusive"
    assert exit_code(result) == ExitCode.INCONCLUSIVE
    assert exit_code(result.model_copy(update={"overall": "pass"})) == ExitCode.INCONCLUSIVE


def test_no_flip_is_no_weaker_evidence_than_one() -> None:
    """An unchanged rerun passes wherever one lost item would."""
    columns = {"cluster": [f"c{i // 10}" for i in range(300)]}
    gate = GateSpec(metric="*", margin=0.03)
    assert [decide(accuracy(k, 300, **columns), gate).overall for k in (0, 1)] == ["pass", "pass"]


def test_clusters_widen_what_a_rule_may_conclude() -> None:
    flipped = np.zeros(600)
    flipped[:24] = 1
    clusters = [f"c{i // 12}" for i in range(600)]
    alone, together = (
        decide(
            [
                cell("reference", "m", np.ones(600), SHARE, **columns),
                cell("awq", "m", 1 - flipped, SHARE, **columns),
            ],
            GateSpec(metric="*", margin=0.06),
        )
        for columns in ({}, {"cluster": clusters})
    )
    assert (alone.overall, together.overall) == ("pass", "inconclusive")


def test_items_are_data_frames_as_parquet_gives_them() -> None:
    cells = accuracy(3, 400)
    plain = [Cell(c.result, pd.DataFrame(c.items.to_dict("records"))) for c in cells]
    gate = GateSpec(metric="*", margin=0.03)
    assert decide(plain, gate).rules == decide(cells, gate).rules
