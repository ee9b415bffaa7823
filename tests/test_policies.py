"""Named policies: what there is, how they combine with a spec's own rules, and what they make of runs of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from awqbench.cli import app
from awqbench.commands.policies import items
from awqbench.compare import Cell, compare_tables
from awqbench.errors import UserError
from awqbench.gate import judge, policy_hash
from awqbench.policies import declared, load_policy, refuse_unmeasured, shipped_policies
from awqbench.record.schema import CellResult, Metric, Verdict
from awqbench.spec import GateSpec, parse_spec
from awqbench.suites.base import item_table

NAMES = ["mlperf-99", "mlperf-99.9", "smoke", "strict"]
KINDS: dict[str, dict[str, Any]] = {
    "perplexity/t@64": {"unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"},
    "divergence/t@64/prefill/kl": {"unit": "nats per token", "higher_is_better": False, "pairing": "to-reference"},
    "tasks/a/acc": {"unit": "share", "higher_is_better": True, "pairing": "difference"},
    "tasks/a/generated-tokens": {"unit": "tokens", "higher_is_better": None, "pairing": "difference"},
    "tasks/a/empty": {"unit": "share", "higher_is_better": False, "pairing": "difference"},
    "fairness/s/accuracy": {"unit": "share", "higher_is_better": True, "pairing": "difference"},
    "fairness/s/stereotype-preference": {"unit": "share", "higher_is_better": None, "pairing": "difference"},
}


def cell(backend: str, metric: str, scores: Any, **columns: Any) -> Cell:
    rows = [
        {"metric": metric, "item_id": f"i{i}", "score": score, **{name: values[i] for name, values in columns.items()}}
        for i, score in enumerate(scores)
    ]
    made = Metric(id=metric, value=float(np.mean(scores)), n=len(rows), protocol="p", **KINDS[metric])
    result = CellResult(
        backend=backend, suite=metric, kind=metric.split("/")[0], key="k", status="ok", metrics=[made],
        role="reference" if backend == "reference" else "candidate",
    )  # fmt: skip
    return Cell(result, item_table(rows))


def by(policy: str, *cells: Cell) -> Verdict:
    gates = load_policy(policy).gates
    comparison = compare_tables(cells, "reference", None)
    return judge(gates, cells, comparison, "reference", policy_hash=policy_hash(gates))


def pair(metric: str, before: Any, after: Any, **columns: Any) -> list[Cell]:
    return [cell("reference", metric, before, **columns), cell("awq", metric, after, **columns)]


def test_these_are_shipped_and_say_what_they_are() -> None:
    assert sorted(shipped_policies()) == NAMES
    for name in NAMES:
        assert load_policy(name).description
        assert all(gate.optional and gate.name for gate in load_policy(name).gates)


def test_a_policy_comes_before_the_specs_own_rules_and_is_hashed_with_them(tmp_path: Path) -> None:
    own = {"metric": "size/*", "margin": 0.0, "unit": "relative"}
    spec = {"suites": {"perplexity": {}}, "policy": "mlperf-99"}
    alone, both = declared(parse_spec(spec)), declared(parse_spec({**spec, "gates": [own]}))
    assert (alone.name, both.name) == ("mlperf-99", "mlperf-99 and the spec's own rules")
    assert both.gates == (*load_policy("mlperf-99").gates, parse_spec({**spec, "gates": [own]}).gates[0])
    assert policy_hash(both.gates) != policy_hash(alone.gates) == policy_hash(load_policy("mlperf-99").gates)
    file = tmp_path / "release.toml"
    file.write_text('policy = "mlperf-99"\n[[gates]]\nmetric = "size/*"\nmargin = 0.0\nunit = "relative"\n')
    assert load_policy(file).gates == both.gates
    file.write_text('policy = "mlperf-99"\n[suites.perplexity]\n[[gates]]\nmetric = "x"\nmargin = 1\n')
    assert len(load_policy(file).gates) == len(alone.gates) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"unknown policy 'mlperf-98'; did you mean 'mlperf-99'\? \(allowed: a TOML file .*, smoke, strict\)",
        ),
        ("[[gates]]\nmetrc = 'a'\nmargin = 0.1\n", r"did you mean 'gates\.0\.metric'"),
        ("[[gate]]\nmetric = 'a'\nmargin = 0.1\n", r"unknown key 'gate'; did you mean 'gates'"),
        ("[[gates", "cannot read the policy"),
        ("policy = 'strickt'\n", "did you mean 'strict'"),
        ("policy = '{path}'\n", "names itself"),
    ],
)
def test_mistakes_are_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    if text is not None:
        path.write_text(text.replace("{path}", str(path)))
    with pytest.raises(UserError, match=message):
        load_policy("mlperf-98" if text is None else path)


def test_a_policys_rule_on_a_backend_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[[gates]]\nmetric = 'a'\nmargin = 0.1\ncandidates = ['awqq']\n")
    with pytest.raises(UserError, match="'awqq'; backends are"):
        declared(parse_spec({"suites": {"perplexity": {}}, "policy": str(path)}))


def test_rules_on_what_was_not_measured_are_not_applicable_and_at_least_one_must_be() -> None:
    tasks = pair("tasks/a/acc", np.ones(9000), np.ones(9000))
    found = by("mlperf-99", *tasks)
    assert found.overall == "pass"
    assert [line.split(": ")[1] for line in found.not_applicable] == [
        "fairness/*/accuracy was not measured", "tasks/*/generated-tokens* was not measured",
    ]  # fmt: skip
    with pytest.raises(UserError, match="no rule of the policy applies to this run: keeps 99 %"):
        by("mlperf-99", *pair("perplexity/t@64", np.ones(20), np.ones(20)))


def test_an_optional_rule_waits_for_what_may_have_had_its_metric() -> None:
    lost = [c.result.model_copy(update={"status": "failed", "metrics": [], "reason": "killed"})
            for c in pair("fairness/s/accuracy", [1.0], [1.0])]  # fmt: skip
    cells = [*pair("tasks/a/acc", np.ones(9000), np.ones(9000)), *(Cell(result, item_table([])) for result in lost)]
    found = by("mlperf-99", *cells)
    assert found.overall == "inconclusive"
    assert found.invalid == [f"{name}/fairness/s/accuracy: failed: killed" for name in ("awq", "reference")]
    assert len(found.not_applicable) == 1


@pytest.mark.parametrize(
    ("policy", "lost", "n", "verdict"),
    [
        ("mlperf-99", 0.0, 1000, "pass"), ("mlperf-99", 0.03, 2000, "fail"), ("mlperf-99", 0.0, 200, "inconclusive"),
        ("mlperf-99.9", 0.0, 1000, "inconclusive"), ("mlperf-99.9", 0.01, 5000, "fail"),
        ("strict", 0.0, 1000, "pass"), ("strict", 0.004, 5000, "fail"), ("strict", 0.0, 100, "inconclusive"),
        ("smoke", 0.0, 24, "pass"), ("smoke", 0.9, 24, "fail"), ("smoke", 0.1, 24, "pass"),
    ],
)  # fmt: skip
def test_what_each_policy_makes_of_lost_answers(policy: str, lost: float, n: int, verdict: str) -> None:
    after = np.ones(n)
    after[: round(lost * n)] = 0
    assert by(policy, *pair("tasks/a/acc", np.ones(n), after)).overall == verdict


@pytest.mark.parametrize("policy", NAMES)
def test_answers_that_are_never_empty_are_no_baseline_of_zero(policy: str) -> None:
    cells = [*pair("tasks/a/acc", np.ones(9000), np.ones(9000)), *pair("tasks/a/empty", np.zeros(900), np.zeros(900))]
    found = by(policy, *cells)
    assert found.invalid == []
    assert {rule.metric for rule in found.rules} == {"tasks/a/acc", *(["tasks/a/empty"] if policy == "strict" else [])}


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (0.8, "fail"), (1.2, "fail"), (0.95, "pass")])
def test_a_model_that_rambles_or_truncates_has_regressed(factor: float, verdict: str) -> None:
    length = 50 + 10 * np.sin(np.arange(200))
    assert by("mlperf-99", *pair("tasks/a/generated-tokens", length, factor * length)).overall == verdict


def test_strict_names_the_group_that_lost_more() -> None:
    group = np.arange(4000) % 4
    after = np.where((group == 2) & (np.arange(4000) % 20 == 2), 0.0, 1.0)
    names = np.array(list("abcd"))[group]
    found = by("strict", *pair("fairness/s/accuracy", np.ones(4000), after, group_region=names))
    failing = {(rule.attribute, rule.group) for rule in found.rules if rule.verdict == "fail"}
    assert failing == {(None, None), ("region", "c")}
    moved = np.where(names == "b", 0.0, np.arange(4000) % 2)
    found = by("strict", *pair("fairness/s/stereotype-preference", np.arange(4000) % 2, moved, group_region=names))
    assert {rule.group for rule in found.rules if rule.verdict == "fail"} >= {None, "b"}


def test_a_loss_within_the_margin_fails_under_zero_tolerance_only() -> None:
    base = np.linspace(2.9, 3.1, 40)
    worse = base + np.log(1.005) + np.tile([1e-4, -1e-4], 20)
    (rule,) = by("strict", *pair("perplexity/t@64", base, worse)).rules
    assert (rule.verdict, round(rule.estimate, 4)) == ("fail", 0.005)
    assert "limit 1 % and no loss shown" in rule.reason
    better = by("strict", *pair("perplexity/t@64", base, base - 0.002 + np.tile([1e-4, -1e-4], 20)))
    assert better.overall == "pass"


def test_the_commands_tell_the_rules_and_the_items_they_take() -> None:
    listed = CliRunner().invoke(app, ["policies", "list"]).output
    assert [line.split()[0] for line in sorted(listed.splitlines())] == NAMES
    shown = CliRunner().invoke(app, ["policies", "show", "mlperf-99.9"]).output
    assert "630,874" in shown
    data = json.loads(CliRunner().invoke(app, ["policies", "show", "mlperf-99", "--json"]).output)
    assert data["gates"][0]["items_needed"] == {"0.02": 2524, "0.05": 6309, "0.1": 12618}
    assert items(load_policy("strict").gates[0], 0.7) == []
    own = GateSpec(metric="fairness/bold*/perplexity", margin=0.05, unit="relative")
    answers = own.model_copy(update={"metric": "fairness/bbq*/accuracy"})
    assert items(own, 0.7) == items(own.model_copy(update={"metric": "tasks/*/prob"}), 0.7) == []
    assert items(answers, 0.7) != []
    assert isinstance(CliRunner().invoke(app, ["policies", "show", "none"]).exception, UserError)


def test_a_rule_that_nothing_measures_is_refused_before_anything_is_measured() -> None:
    def check(metric: str, **rule: Any) -> None:
        spec = parse_spec(
            {"suites": {"tasks": {}, "latency": {}}, "gates": [{"metric": metric, "margin": 0.1, **rule}]}
        )
        refuse_unmeasured(declared(spec), spec)

    for fits in ("tasks/*/acc", "*", "t*/acc", "size/checkpoint", "memory/*", "latency/ttft*"):
        check(fits)
    check("fairness/*/accuracy", optional=True)
    with pytest.raises(UserError, match=r"'fairness/\*/accuracy' matches no metric.*kind latency, tasks .allowed"):
        check("fairness/*/accuracy")
