import json

import pytest

from awqbench.errors import UserError
from awqbench.formats.card_results import add_results, results_markdown
from awqbench.record.reader import Cell, Run
from awqbench.record.schema import CellResult, Comparison, Difference, Manifest, Metric, Verdict
from awqbench.suites.base import item_table

PERPLEXITY = "perplexity/pydoc-topics@512"


def metric(value, **fields):
    return Metric(id=PERPLEXITY, value=value, unit="perplexity", n=8, protocol="invented", **fields)


def cell(backend, role, metrics, **fields):
    fields = {"status": "ok", "suite": "perplexity", **fields}
    return Cell(
        CellResult(backend=backend, kind="perplexity", role=role, key="k", metrics=metrics, **fields), item_table([])
    )


@pytest.fixture
def run(tmp_path):
    """A run of invented figures."""
    manifest = Manifest(
        awqbench_version="0.1.0", created="2026-01-01T03:04:05+00:00",
        finished="2026-01-02T03:04:05+00:00", spec={"backends": {"awq": {"kind": "awq"}}},
        spec_hash="s", policy_hash="p", model={"label": "small"},
    )  # fmt: skip
    difference = Difference(
        suite="perplexity", metric=PERPLEXITY, protocol="invented", unit="perplexity", higher_is_better=False,
        pairing="log-ratio", baseline="reference", candidate="awq", role="candidate", baseline_value=20.0,
        candidate_value=22.0, delta=0.1, delta_unit="relative", ci_low=0.05, ci_high=0.15, n=8,
    )  # fmt: skip
    cells = [
        cell(
            "awq", "candidate", [metric(22.0, ci_low=21.0, ci_high=23.0)], unmeasured={"a": "too long", "b": "too long"}
        ),
        cell("awq", "candidate", [], suite="tasks", status="failed", reason="it crashed"),
        cell("reference", "reference", [metric(20.0)]),
    ]
    comparison = Comparison(reference="reference", noise_floor=None, differences=[difference])
    verdict = Verdict(policy_hash="p", overall="fail", candidates={"awq": "fail"})
    return Run(tmp_path / "run", manifest, cells, comparison, verdict)


def test_figures_stand_with_their_intervals_and_the_reference(run):
    text = results_markdown(run, "awq")
    assert "Backend `awq` against small, measured on 2026-01-02 with awqbench 0.1.0." in text
    assert "It may not ship" in text
    assert f"| `{PERPLEXITY}` | 22.00 | 21.00 to 23.00 | 8 | 20.00 | +10.0 % | +5.00 to +15.0 % |" in (
        text.replace("\N{NO-BREAK SPACE}", " ")
    )
    assert "Not measured: tasks (failed: it crashed); perplexity (too long)." in text


def test_a_control_is_not_taken_for_the_reference(run):
    """Rows are in the order of the baselines' names: a control called "plain" comes before a reference."""
    control = run.comparison.differences[0].model_copy(
        update={"baseline": "plain", "baseline_value": 30.0, "delta": -0.2}
    )
    run.comparison.differences.insert(0, control)
    assert "| 20.00 | +10.0 % |" in results_markdown(run, "awq").replace("\N{NO-BREAK SPACE}", " ")


def test_an_unfinished_run_is_refused(run):
    """It is being measured again: what lies there of a verdict is of the cells before."""
    run.manifest.finished = None
    with pytest.raises(UserError, match="run is unfinished"):
        results_markdown(run, "awq")


def test_a_backend_without_comparison_or_verdict(run):
    text = results_markdown(run, "reference")
    assert "ship" not in text
    assert f"| `{PERPLEXITY}` | 20.00 | – | 8 | – | – | – |" in text


def test_the_card_of_a_checkpoint(run, written):
    case = written()
    run.quantization["awq"] = json.loads((case.out / "quantize.json").read_text())
    path = add_results(case.out, run, "awq")
    assert path == case.out / "README.md"
    once = path.read_text()
    assert "22.00" in once
    assert once.startswith("---\n")
    add_results(case.out, run, "awq")
    assert path.read_text() == once
    assert not [each.name for each in case.out.iterdir() if each.name.startswith(".")]


def test_a_checkpoint_of_another_tool(run, written):
    case = written()
    (case.out / "quantize.json").unlink()
    assert add_results(case.out, run, "awq").read_text().startswith("# out\n\n## Measured results\n")
    (case.out / "README.md").write_text("# Theirs\n")
    assert add_results(case.out, run, "awq").read_text().startswith("# Theirs\n\n## Measured results\n")


def test_what_is_refused(run, written, tmp_path):
    case = written()
    with pytest.raises(UserError, match="unknown backend 'awk'; did you mean 'awq'"):
        add_results(case.out, run, "awk")
    with pytest.raises(UserError, match="no checkpoint"):
        add_results(tmp_path / "nothing", run, "awq")
    run.quantization["awq"] = {"recipe": {"method": "gptq"}}
    with pytest.raises(UserError, match=r"another checkpoint .*quantize.json differs"):
        add_results(case.out, run, "awq")
    run.quantization.clear()
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"something else")
    run.manifest.spec["backends"]["awq"]["checkpoint"] = str(other)
    with pytest.raises(UserError, match="another checkpoint than"):
        add_results(case.out, run, "awq")
    run.cells = [cell("awq", "candidate", [metric(None)])]
    with pytest.raises(UserError, match="measured nothing of awq"):
        add_results(case.out, run, "awq")
    assert not (case.out / "README.md").exists()
