from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from awqbench.record.attribution import Amount, Attribution, Entry, Recovery, Stage, Step
from awqbench.record.files import write_model
from awqbench.record.reader import Run, load_run
from awqbench.report.html import html
from awqbench.report.sections.attribution import attributions

AMOUNT = Amount(value=0.02, ci_low=0.01, ci_high=0.03)
RECOVERY = Recovery(value=0.02, ci_low=0.01, ci_high=0.03, share=0.31, share_low=0.27, share_high=0.352)


def entry(name: str, measured: Recovery | None = None) -> Entry:
    block = int(name.split(".")[2])
    return Entry(
        name=name, kind=name.rpartition(".")[2], block=block, shape=[8, 8], bits=4, bytes=40, weight_share=0.5,
        added_bytes=88, estimate=AMOUNT, share=0.5, measured=measured,
    )  # fmt: skip


def attribution(**changes: object) -> Attribution:
    """Invented figures, for the page alone."""
    first, second = "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"
    stage = Stage(units=8, clusters=8, tokens=1024, damage=AMOUNT)
    found = Attribution(
        awqbench_version="0", created="2026-01-01T00:00:00+00:00", checkpoint="awq", checkpoint_hash="c",
        reference="model", reference_hash="r", measure={"name": "kl", "text": "wiki", "window": 128, "unit": "nats"},
        by="linear", points=3, seed=0, estimating=stage, confirming=stage, explained=0.997,
        remainder=Amount(value=0, ci_low=0, ci_high=0), scaled_groups=4,
        linears=[entry(first, RECOVERY), entry(second)],
        blocks=[], kinds=[], steps=[Step(names=[first], added_bytes=88, measured=RECOVERY)], agreement={}, keep=[first],
        notes=["a note <b>"], seconds=1.0,
    )  # fmt: skip
    return found.model_copy(update=changes)


@pytest.fixture(scope="module")
def copied(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The invented run with an attribution."""
    place = tmp_path_factory.mktemp("attributed") / "run"
    shutil.copytree(run_dir, place)
    write_model(place / "attribution" / "awq.json", attribution())
    return place


def test_the_page_says_what_was_measured_and_what_to_do(copied: Path) -> None:
    page = html(load_run(copied))
    assert '<section id="attribution"' in page
    assert '<a href="#attribution">' in page
    assert "31.0 % [27.0, 35.2]" in page
    assert "--keep=model.layers.0.mlp.down_proj" in page
    assert "KL(reference || checkpoint) on wiki@128" in page
    assert "a note &lt;b&gt;" in page


def test_without_an_attribution_the_page_has_no_such_section(run: Run) -> None:
    assert run.attributions == {}
    assert "attribution" not in html(run)


def test_of_a_group_amounts_stand_where_shares_mean_nothing(run: Run) -> None:
    unsure = RECOVERY.model_copy(update={"share": None, "share_low": None, "share_high": None})
    measure = {"name": "bbq/choice", "attribute": "age", "group": "old", "unit": "nats per item"}
    rows = [entry("model.layers.0.mlp.up_proj", unsure)]
    run.attributions = {"awq-bbq-old": attribution(measure=measure, linears=rows)}
    (view,) = attributions(run)
    run.attributions = {}
    assert view.title == "increase of the loss bbq/choice, age = old less the others"
    assert view.rows[0].recovered == "0.0200 [0.0100, 0.0300]"
    assert view.chart is not None
