"""The whole way: in a process of its own on a real checkpoint, and planted damage that must be found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from awqbench.attribution.api import attribute
from awqbench.attribution.damage import Divergence, Items, Question
from awqbench.attribution.dense import load_candidate
from awqbench.attribution.parts import changed_parts, gathered
from awqbench.attribution.path import measure, path_integral, put_back
from awqbench.attribution.pipeline import attribute as in_process
from awqbench.attribution.printing import plan_line, print_attribution
from awqbench.attribution.recovery import Sample
from awqbench.attribution.tables import entries
from awqbench.cli import app
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.quantization.rounding import fake_quantize
from awqbench.record.attribution import Attribution, Entry
from awqbench.record.files import write_model
from awqbench.record.reader import read_record
from awqbench.sources.tiny import make_tiny

LINEARS = 14


def attributed(checkpoint: Path, reference: Path, measure: dict[str, Any], **asked: Any) -> Attribution:
    """Without a process of its own, whose start costs more than the work."""
    request = {
        "checkpoint": checkpoint, "reference": reference, "reference_label": "model", "trust_remote_code": False,
        "device": "cpu", "measure": measure, "by": "linear", "top": 1, "points": 3, "seed": 0, "max_minutes": None,
    }  # fmt: skip
    return in_process({**request, **asked}, lambda done, total, what: None)


WINDOWS = {"text": "pydoc-topics", "window": 64, "windows": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random byte-level Llama of two blocks, with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny(folder, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    return folder


@pytest.fixture(scope="module")
def checkpoint(model: Path, save_quantized: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It in 3 bits by AWQ; the tokenizer is the model's."""
    return save_quantized(model, tmp_path_factory.mktemp("made") / "awq", bits=3)


@pytest.fixture(scope="module")
def recorded(model: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Every linear put back, through the process; and what its progress said, tokens done less those expected."""
    out, seen = tmp_path_factory.mktemp("record") / "attribution.json", []
    attribute(
        checkpoint, str(model), window=64, windows=6, top=LINEARS + 5, out=out, threads=1,
        progress=lambda done, total, what: seen.append(done - total),
    )  # fmt: skip
    return out, seen


@pytest.fixture(scope="module")
def found(recorded: tuple[Path, list[int]]) -> Attribution:
    """The record as written."""
    return read_record(recorded[0], Attribution)


def test_the_estimates_are_the_damage_and_all_put_back_leaves_none(found: Attribution) -> None:
    assert found.explained == pytest.approx(1, abs=0.02)
    assert found.remainder.value == pytest.approx(0, abs=1e-6)
    assert found.steps[-1].measured.share == pytest.approx(1, abs=1e-3)
    assert found.scaled_groups > 0
    assert len(found.linears) == LINEARS
    for table in (found.linears, found.blocks, found.kinds):
        assert sum(row.share or 0 for row in table) == pytest.approx(1)
        assert sum(row.weight_share for row in table) == pytest.approx(1)


def test_estimates_rank_as_measurements_do(found: Attribution) -> None:
    assert (found.agreement["estimate/measured"] or 0) > 0.7
    measured = [row.measured.share or 0 for row in found.linears if row.measured]
    assert len(measured) == LINEARS
    assert sum(measured) == pytest.approx(1, abs=0.3)  # what interactions leave
    assert "output_mse/measured" in found.agreement


def test_the_progress_ends_where_it_said_it_would(recorded: tuple[Path, list[int]]) -> None:
    assert recorded[1][-1] == 0


def test_what_is_kept_comes_back_as_measured(
    found: Attribution, model: Path, save_quantized: Callable[..., Path], tmp_path: Path
) -> None:
    """Quantized again with `keep`, nothing else changes, and the KL falls by what putting back had said."""
    name = next(row.name for row in found.linears if row.kind == "down_proj" and row.name in found.keep)
    kept = save_quantized(model, tmp_path / "kept", bits=3, keep=(name,))
    again = attributed(kept, model, WINDOWS)
    measured = next(row.measured for row in found.linears if row.name == name)
    assert measured is not None
    fell = 1 - again.confirming.damage.value / found.confirming.damage.value
    assert fell == pytest.approx(measured.share, abs=0.01)  # rows' scales are found again to a per cent or two
    table = json.loads((kept / "quantize.json").read_text())["mixed"]
    assert [row["name"] for row in table["linears"]] == [name]


def table(
    reference: nn.Module, candidate: nn.Module, damage: Divergence | Items, sample: Sample
) -> tuple[list[Entry], dict[str, Tensor]]:
    """Linears and other modules by estimate."""
    weights = dict(reference.named_parameters())
    parts, deltas = changed_parts(candidate, weights, {})
    units = list(range(len(damage.tokens)))
    with torch.no_grad():
        for unit in units:
            damage.record(reference, unit)
    before = measure(candidate, damage, units, lambda _: None)
    by_parameter = path_integral(candidate, deltas, damage, units, 3, lambda _: None)
    contributions = {part.name: by_parameter[f"{part.name}.weight"] for part in parts}
    return entries(gathered(parts, "linear"), contributions, sample, sample.amount(before)), deltas


def test_a_planted_two_bit_linear_is_found(model: Path, ids: Tensor, tmp_path: Path) -> None:
    reference, _ = load_candidate(model)
    candidate, _ = load_candidate(model)
    planted = "model.layers.1.mlp.up_proj"
    for name, module in candidate.named_modules():
        if isinstance(module, nn.Linear) and "layers" in name:
            bits = 2 if name == planted else 4
            module.weight.data = fake_quantize(module.weight.data, bits, 16, symmetric=False)
    windows = (ids[:240] % 256).view(4, 60).tolist()
    rows, _ = table(reference, candidate, Divergence(windows, tmp_path), Sample.of(list("abcd"), [True] * 4, True))
    assert rows[0].name == planted


def test_harm_to_one_group_is_traced_to_the_embedding_of_its_words(model: Path, tmp_path: Path) -> None:
    """A linear is rounded to 3 bits, which everyone bears; the rows of one group's word are disturbed, which one bears.

    All together the linear does the most damage, and to the group beyond the others the embedding does.
    """
    reference, _ = load_candidate(model)
    candidate, _ = load_candidate(model)
    rounded = "model.layers.0.mlp.down_proj"
    linear = candidate.get_submodule(rounded)
    linear.weight.data = fake_quantize(linear.weight.data, 3, 16, symmetric=False)
    word = {"ours": 200, "theirs": 201}
    with torch.no_grad():
        noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
        embedding = candidate.get_parameter("model.embed_tokens.weight")
        embedding[word["ours"]] += 0.5 * embedding[word["ours"]].norm() / 8 * noise
    generator = torch.Generator().manual_seed(1)
    questions, groups, clusters = [], [], []
    for number in range(12):
        context = torch.randint(10, 190, (10,), generator=generator).tolist()
        for group, token in word.items():
            choices = tuple((*context, token, *context[:3], 150 + choice) for choice in range(2))
            questions.append(Question(choices, (14, 14), number % 2, (1, 1)))
            groups.append(group)
            clusters.append(f"question {number}")
    # The loss that falls: whichever answer the reference prefers.
    damage = Items(questions, clusters, "choice")
    harmed = [group == "ours" for group in groups]
    rows, deltas = table(reference, candidate, damage, Sample.of(clusters, harmed))
    assert {row.name for row in rows} == {"model.embed_tokens", rounded}
    by_group = path_integral(candidate, deltas, damage, range(24), 3, lambda _: None)
    embedded = np.abs(by_group["model.embed_tokens.weight"])
    mine = np.array(harmed)
    assert embedded[mine].mean() > 20 * embedded[~mine].mean()
    spread = np.abs(by_group[f"{rounded}.weight"])
    assert spread[mine].mean() < 3 * spread[~mine].mean()
    with put_back(candidate, deltas, ["model.embed_tokens"]):
        after = measure(candidate, damage, range(24), lambda _: None)
    before = measure(candidate, damage, range(24), lambda _: None)
    assert np.abs(before - after)[mine].mean() > 20 * np.abs(before - after)[~mine].mean()


def test_a_set_without_a_named_group_names_the_one_that_suffers(model: Path, checkpoint: Path) -> None:
    asked = {"set": "counterfactual", "items": 30, "attribute": "gender"}
    found = attributed(checkpoint, model, asked)
    assert found.measure["group"] in {"female", "male"}
    assert any("is the group that the estimating half shows most harm to" in note for note in found.notes)
    assert found.estimating.group_units == found.estimating.units / 2
    assert found.explained == pytest.approx(1, abs=0.05)


def test_weights_that_differ_and_damage_nothing_leave_a_record_that_can_be_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN was written as null, and the run around the record could not be read any more."""
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][:, 0] = 0  # nobody reads the first of what up_proj makes
    for name, change in (("reference", 0), ("other", 1)):
        shutil.copytree(model, tmp_path / name)
        weights["model.layers.0.mlp.up_proj.weight"][0] += change
        save_file(weights, tmp_path / name / "model.safetensors", {"format": "pt"})
    found = attributed(tmp_path / "other", tmp_path / "reference", WINDOWS)
    assert (found.estimating.damage.value, found.explained) == (0, None)
    write_model(tmp_path / "record.json", found)
    assert read_record(tmp_path / "record.json", Attribution) == found
    print_attribution(found)
    assert "nan" not in capsys.readouterr().out.casefold()


def test_printed(found: Attribution, capsys: pytest.CaptureFixture[str]) -> None:
    print_attribution(found)
    shown = capsys.readouterr().out
    assert "recovered when put back" in shown
    assert "the first 14" in shown
    assert f"--keep={found.keep[0]}" in shown
    assert plan_line("2 windows", 3, 2).startswith("estimate: 2 windows, 10 forward passes' worth (3 gradients)")


def test_by_kind_as_json(model: Path, checkpoint: Path) -> None:
    asked = ["--reference", str(model), "--window", "32", "--windows", "2", "--by", "kind", "--threads", "1", "--json"]
    told = CliRunner().invoke(app, ["attribute", str(checkpoint), *asked, "--points", "1"])
    assert told.exit_code == 0, told.output
    read = Attribution.model_validate_json(told.stdout)
    assert (read.by, read.points) == ("kind", 1)
    assert {row.name for row in read.kinds if row.measured} == {row.name for row in read.kinds}
    assert set(read.keep) <= {row.name for row in read.kinds}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"reference": None}, "say what it was made from with --reference"),
        ({"group": "female"}, "'female' says something about the items of a set"),
        ({"by": "layer"}, "unknown grouping 'layer'"),
        ({"top": 0}, "top is 0"),
        ({"points": 0}, "points is 0"),
    ],
)
def test_mistakes_are_named(model: Path, checkpoint: Path, asked: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attribute(checkpoint, **{"reference": str(model), "windows": 2, "window": 16, "threads": 1, **asked})  # type: ignore[arg-type]


def test_a_place_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a checkpoint's folder .* nor a run directory"):
        attribute(tmp_path)


def test_a_folder_in_place_of_the_record_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        attribute(tmp_path, out=tmp_path)


def test_a_measurement_that_cannot_be_is_told_by_the_process(model: Path, checkpoint: Path) -> None:
    with pytest.raises(InvalidMeasurement, match="more are needed"):
        attribute(checkpoint, str(model), item_set="counterfactual", items=2, attribute="gender", threads=1)


def test_the_same_weights_have_nothing_to_attribute(model: Path) -> None:
    with pytest.raises(UserError, match="hold the same weights"):
        attributed(model, model, WINDOWS)


def test_a_limit_of_time_that_is_too_short_is_told(model: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"takes about .* minutes here"):
        attributed(checkpoint, model, WINDOWS, max_minutes=1e-6)
