"""What each section chooses and joins."""

from __future__ import annotations

from awqbench.record.reader import Run
from awqbench.record.schema import Metric
from awqbench.report import format as fmt
from awqbench.report.markdown import markdown
from awqbench.report.sections.coverage import coverage
from awqbench.report.sections.engines import engines
from awqbench.report.sections.fairness import attributes, charts, worst
from awqbench.report.sections.flips import flips
from awqbench.report.sections.latency import latency
from awqbench.report.sections.provenance import flat, provenance
from awqbench.report.sections.quantization import quantization
from awqbench.report.sections.suites import percentile_values, percentiles, suites, tail_chart
from awqbench.report.sections.telemetry import POINTS, telemetry
from awqbench.report.sections.verdict import cards, glance


def test_a_card_counts_and_gives_reasons(run: Run) -> None:
    (card,) = cards(run)
    assert (card.candidate, card.answer) == ("awq", "fail")
    assert card.counts == {"fail": 2, "inconclusive": 1, "pass": 3, "not judged": 1}
    assert len(card.reasons) == 2
    (short,) = cards(run, most=1)
    assert short.reasons[-1] == "and 1 more, listed below"


def test_a_pass_names_what_came_closest(run: Run) -> None:
    assert run.verdict is not None
    run.verdict.candidates["awq"] = "pass"
    run.verdict.rules = [rule for rule in run.verdict.rules if rule.verdict == "pass" and rule.group is None]
    (card,) = cards(run)
    assert card.sentence == "may ship"
    assert card.reasons[0].startswith("closest to its limit: divergence/")


def test_a_failed_measurement_is_no_pass(run: Run) -> None:
    assert run.verdict is not None
    run.verdict.candidates["awq"] = "pass"
    run.verdict.invalid = ["awq/latency: failed: throttled", "awq-3bit/latency: failed"]
    (card,) = cards(run)
    assert card.sentence == "cannot be judged: a measurement failed"
    assert card.reasons == ["latency: failed: throttled"]


def test_changes_of_a_perplexity_by_group_are_relative(run: Run) -> None:
    for made in run.cells:
        for metric in made.result.metrics if made.result.suite == "fairness" else ():
            metric.unit, metric.pairing = "perplexity", "log-ratio"
    assert run.verdict is not None
    for rule in run.verdict.rules:
        rule.unit = "relative"
    views = attributes(run, "fairness")
    assert {(view.unit, view.delta_unit) for view in views} == {("perplexity", "relative")}
    ((_, south),) = worst(views)
    assert f"**origin = south** {fmt.delta(south.did, 'relative')} against" in markdown(run)
    origin = str(charts(run, views)[[view.attribute for view in views].index("origin")])
    assert "difference, %" in origin
    assert "var(--fail)" in origin  # the declared limit


def test_a_reference_that_is_no_yardstick_is_named_where_it_leaves_a_candidate_unjudged(run: Run) -> None:
    assert run.verdict is not None
    run.verdict.invalid = ["reference-again/tasks: tasks/a: reference differs from itself by 3 %"]
    for given, answer in (("inconclusive", "invalid"), ("fail", "fail"), ("pass", "pass")):
        run.verdict.candidates["awq"] = given
        (card,) = cards(run)
        assert card.answer == answer
        assert (card.reasons == run.verdict.invalid) == (answer == "invalid")


def test_a_card_that_nothing_else_explains_says_what_could_not_be_judged(run: Run) -> None:
    assert run.verdict is not None
    run.verdict.candidates["awq"] = "inconclusive"
    run.verdict.rules = [rule for rule in run.verdict.rules if rule.group == "islands"]
    (card,) = cards(run)
    assert ["islands: not judged: 8 items in the group" in reason for reason in card.reasons] == [True]


def test_glance_has_a_column_per_compared_backend(run: Run) -> None:
    backends, rows = glance(run)
    assert backends == ["awq", "rtn"]
    assert [row.kind for row in rows][:4] == ["perplexity", "divergence", "tasks", "fairness"]
    assert "rtn" not in next(row for row in rows if row.metric == "size/checkpoint").differences


def test_coverage_knows_missing_from_failed(run: Run) -> None:
    found = coverage(run)
    assert ("reference", "divergence") not in found.cells
    assert found.cells["rtn", "latency"].status == "failed"


def test_worst_group_first_and_small_groups_last(run: Run) -> None:
    views = attributes(run, "fairness")
    origin = next(view for view in views if view.attribute == "origin")
    candidate = [group for group in origin.groups if group.role == "candidate"]
    assert candidate[0].group == "south"
    assert candidate[-1].group == "islands"
    assert candidate[-1].too_few
    ((view, group),) = worst(views)
    assert (view.attribute, group.group, group.candidate) == ("origin", "south", "awq")
    drawn = charts(run, views)
    assert "too few items to judge" in str(drawn[views.index(origin)])
    for group in origin.groups:
        group.too_few = True
    assert charts(run, [origin]) == [None]
    assert worst([origin]) == []


def test_flips_show_broken_items_first_and_count_all(run: Run) -> None:
    tables = {table.suite: table for table in flips(run, most=3)}
    tasks = tables["tasks"]
    assert (tasks.candidate, tasks.total, len(tasks.items)) == ("awq", 5, 3)
    assert all(item.broke and item.reference == "A" and item.candidate == "B" for item in tasks.items)
    assert not flips(run)[0].items[-1].broke
    assert "origin = south" in tables["fairness"].items[0].groups


def test_percentiles_are_those_recorded_in_order() -> None:
    detail = {"p99.9": 3.0, "p50": 1, "max": 9.0, "p99": None, "positions": 7}
    metric = Metric(id="m", value=1.0, unit="nats", n=1, protocol="", detail=detail)
    assert list(percentile_values(metric)) == ["p50", "p99.9", "max"]
    assert percentile_values(metric.model_copy(update={"detail": {"max": 1.0}})) == {}


def test_suite_views(run: Run) -> None:
    views = {view.kind: view for view in suites(run)}
    assert list(views) == ["perplexity", "divergence", "tasks", "fairness", "latency"]
    assert len(views["divergence"].forests) == 2  # nats and shares don't share an axis
    assert [c.result.backend for c in views["latency"].missing] == ["rtn", "reference-again"]
    labels, rows = percentiles(views["divergence"])
    assert labels == ["p50", "p90", "p99", "p99.9", "max"]
    assert {row.backend for row in rows} == {"awq", "rtn", "reference-again"}
    assert tail_chart(run, views["divergence"]) is not None
    assert tail_chart(run, views["tasks"]) is None


def test_latency_separates_batch_sizes_from_single_figures(run: Run) -> None:
    view = next(view for view in suites(run) if view.kind == "latency")
    found = latency(run, view)
    assert found.backends == ["reference", "awq", "rtn"]
    assert list(found.metrics["size/checkpoint"]) == ["reference", "awq"]
    assert "ttft" in str(found.speed)
    assert "checkpoint" in str(found.single)


def test_telemetry_is_thinned_and_explains_what_is_missing(run: Run) -> None:
    for cell in run.cells:
        if cell.telemetry is not None:
            cell.telemetry = cell.telemetry.loc[cell.telemetry.index.repeat(50)].reset_index(drop=True)
    found = telemetry(run)
    assert list(found.host) == ["CPU of the worker, % of one core", "Resident memory of the worker, GiB"]
    assert not found.gpu
    assert found.gpu_notes == ["no GPU: the NVML library was not found"]
    assert POINTS < 40 * 50


def test_quantization_ranks_by_share_of_the_error(run: Run) -> None:
    view = quantization(run, most=2)[0]
    assert [row["share"] for row in view.linears] == [0.4, 0.3]
    assert view.total == 4
    assert view.recipe["clip"] == "yes"
    assert view.recipe["calibration sha256"] == "c" * 12 + "…"
    assert view.columns[:3] == ["name", "shape", "share"]


def test_quantization_leaves_out_what_is_no_backend_of_the_run_any_more(run: Run) -> None:
    run.quantization["gone"] = run.quantization["awq"]
    assert [view.backend for view in quantization(run)] == ["awq", "rtn"]


def test_quantization_of_an_unknown_shape_is_no_error(run: Run) -> None:
    run.quantization = {"awq": {}, "rtn": {"linears": None, "recipe": {"bits": 4}}}
    empty, bare = quantization(run)
    assert (empty.linears, empty.chart, empty.columns) == ([], None, [])
    assert bare.recipe == {"bits": "4"}


def test_provenance_is_flat_text(run: Run) -> None:
    assert flat({"a": {"b": True, "c": None}, "d": [1, 2], "e": []}) == {"a.b": "yes", "d": "1, 2", "e": "none"}
    assert provenance(run).command == "awqbench run bench.toml --out 'runs/a b'"


def test_engines_are_shown_as_they_described_themselves(run: Run) -> None:
    facts = {"engine": "vllm", "engine_version": "0.32.0", "kernel": "MarlinLinearKernel x28", "device": "cuda:0"}
    for cell in run.cells:
        if cell.result.backend == "awq":
            latency = cell.result.kind == "latency"
            cell.result.engine = {**facts, "dtype": "bfloat16" if latency else "float32", "weight_bytes": 5}
            cell.result.notes = ["the decode path was not measured"] if cell.result.kind == "divergence" else []
        if cell.result.backend == "rtn":
            cell.result.engine = {}
            cell.result.status, cell.result.reason = "skipped", "run: awqbench env create vllm"
    rows = {row.backend: row for row in engines(run)}
    awq = rows["awq"]
    assert (awq.engine, awq.kernel, awq.device) == ("vllm 0.32.0", "MarlinLinearKernel x28", "cuda:0")
    assert (awq.dtype, awq.weight_bytes) == ("float32, bfloat16", 5)
    assert awq.not_measured == ["divergence: the decode path was not measured"]
    assert rows["rtn"].engine == "never loaded"
    assert "perplexity: skipped" in rows["rtn"].not_measured


def test_what_may_change_to_neither_side_is_near_its_limit_at_either(run: Run) -> None:
    assert run.verdict is not None
    one, two = (rule.model_copy(update={"group": None, "verdict": "pass"}) for rule in run.verdict.rules[:2])
    one = one.model_copy(update={"rule": "one", "reason": "one", "lower": -0.9, "upper": 0.2, "margin": 1.0})
    two = two.model_copy(update={"rule": "two", "reason": "two", "lower": -0.9, "upper": 0.1, "margin": 1.0})
    run.verdict.rules, run.verdict.candidates = [one, two], {one.candidate: "pass"}
    assert cards(run)[0].reasons == ["closest to its limit: one"]
    run.manifest.gates = [{"name": "two", "metric": "*", "sided": "two"}]
    assert cards(run)[0].reasons == ["closest to its limit: two"]
