"""bench.toml: what is accepted, and how mistakes are explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.presets import preset_text
from awqbench.spec import load_gates, load_spec, parse_quantize, parse_spec

MINIMAL: dict[str, Any] = {"suites": {"perplexity": {}}}


def test_a_minimal_spec_has_the_three_backends_and_one_reference() -> None:
    spec = parse_spec(MINIMAL)
    assert list(spec.backends) == ["reference", "awq", "rtn"]
    assert spec.reference == "reference"
    assert [spec.role_of(name) for name in spec.backends] == ["reference", "candidate", "control"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"suites": {"perplexity": {"windw": 2}}}, "'suites.perplexity.windw'; did you mean 'suites.perplexity.win"),
        ({**MINIMAL, "modell": {}}, "unknown key 'modell'; did you mean 'model'"),
        ({**MINIMAL, "model": {"sauce": "x"}}, "unknown key 'model.sauce'; did you mean 'model.source'"),
        ({**MINIMAL, "gates": [{"metric": "a", "margin": 1, "alpa": 2}]}, "did you mean 'gates.0.alpha'"),
        ({"suites": {"ppl": {}}}, "suites.ppl needs a kind (allowed: perplexity"),
        ({"suites": {"ppl": {"kind": "perplexty"}}}, "did you mean 'perplexity'"),
        ({"suites": {}}, "at least 1 item"),
        ({}, "suites: Field required"),
        ({**MINIMAL, "quantize": {"bits": 5}}, "quantize.bits: Input should be 3 or 4, got 5"),
        ({**MINIMAL, "backends": {"a": {"kind": "awq"}}}, "exactly one backend must be the reference, found none"),
        ({**MINIMAL, "backends": {"a/b": {"kind": "reference"}}}, "backend name 'a/b'"),
        ({"suites": {"perplexity": {"backends": ["vllm"]}}}, "names 'vllm'; backends are"),
        ({**MINIMAL, "gates": [{"metric": "*", "margin": -1}]}, "gates.0.margin"),
        ({**MINIMAL, "backends": {"r": {"kind": "reference"}, "a": {"kind": "awq", "quantize": {"bit": 4}}}}, "bit"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_names_key_and_alternatives(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(bad, "bench.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_reach_into_tables(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('[suites.perplexity]\nwindow = 64\n[model]\nsource = "x"\n')
    spec = load_spec(path, {"model.source": "tiny-random", "seed": 3})
    assert (spec.model.source, spec.seed, spec.suites["perplexity"].window) == ("tiny-random", 3, 64)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no spec at"), ("a = [", "is not TOML"), ("seed = 'x'", "seed")]
)
def test_files_that_are_no_spec(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "bench.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_spec(path)


@pytest.mark.parametrize("name", ["smoke", "default", "full"])
def test_presets_are_valid_and_take_a_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(preset_text(name, 'odd "name"'))
    spec = load_spec(path)
    assert spec.model.source == 'odd "name"'
    assert {"perplexity", "divergence", "tasks", "fairness", "latency"} <= set(spec.suites)
    assert spec.gates
    calibration, evaluation = spec.quantize.calibration, spec.suites["perplexity"].text
    assert calibration != evaluation


def test_unknown_preset() -> None:
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        preset_text("smok")


def test_backend_overrides_of_quantize() -> None:
    spec = parse_spec(
        {**MINIMAL, "backends": {"r": {"kind": "reference"}, "a3": {"kind": "awq", "quantize": {"bits": 3}}}}
    )
    assert spec.quantize_for("a3").bits == 3
    assert spec.quantize.bits == 4


def test_gates_of_another_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[[gates]]\nmetric = "perplexity/*"\nmargin = 0.1\n')
    assert load_gates(path)[0].margin == 0.1
    path.write_text('[[gates]]\nmetrc = "perplexity/*"\nmargin = 0.1\n')
    with pytest.raises(UserError, match=r"did you mean 'gates\.0\.metric'"):
        load_gates(path)


def test_quantize_settings() -> None:
    assert parse_quantize({"bits": 3}).bits == 3
    with pytest.raises(UserError, match="bits"):
        parse_quantize({"bits": 7})
