"""bench.toml: what is accepted, and how mistakes are explained."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.presets import preset_text
from awqbench.spec import load_spec, parse_quantize, parse_spec

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
        ({"suites": {"latency": {"batch_sizes": [1, 0]}}}, "latency.batch_sizes.1: Input should be greater than 0"),
        ({"suites": {"ppl": {}}}, "suites.ppl needs a kind (allowed: perplexity"),
        ({"suites": {"ppl": {"kind": "perplexty"}}}, "did you mean 'perplexity'"),
        ({"suites": {}}, "at least 1 item"),
        ({}, "suites: Field required"),
        ({**MINIMAL, "quantize": {"bits": 5}}, "quantize.bits: Input should be 2, 3, 4 or 8, got 5"),
        ({**MINIMAL, "quantize": {"method": "gtpq"}}, "should be 'rtn', 'awq', 'gptq' or 'awq+gptq', got 'gtpq'"),
        ({**MINIMAL, "quantize": {"group_size": 0}}, "group_size is 0 (allowed: 1 or more, or -1: one scale per row)"),
        ({**MINIMAL, "quantize": {"protocol": "pile"}}, "should be 'stream' or 'documents', got 'pile'"),
        ({**MINIMAL, "quantize": {"search": "x"}}, "should be 'gram' or 'module', got 'x'"),
        ({**MINIMAL, "quantize": {"format": "gguf"}}, "should be 'awq' or 'compressed-tensors', got 'gguf'"),
        ({**MINIMAL, "quantize": {"keep_bits": 6}}, "should be 16 or 8, got 6"),
        ({**MINIMAL, "quantize": {"max_memory": "lots"}}, "not an amount of memory (allowed: bytes, or a number"),
        ({**MINIMAL, "quantize": {"keep_worst": 3, "bits_budget": 5.0}}, "(allowed: one of them)"),
        ({**MINIMAL, "quantize": {"bits": 8, "bits_budget": 5.0}}, "bits_budget is 5.0 (allowed: more than bits, 8)"),
        ({**MINIMAL, "quantize": {"damping": 1}}, "quantize.damping: Input should be less than 1, got 1"),
        ({**MINIMAL, "backends": {"a": {"kind": "smooth"}}}, "backends.a.kind: unknown backend kind 'smooth'"),
        ({**MINIMAL, "backends": {"a": {"kind": "awq", "options": {"x": 1}}}}, "unknown option 'x' of awq"),
        ({**MINIMAL, "backends": {"a": {"kind": "awq", "weights": "b"}}}, "weights says nothing to awq"),
        ({"suites": {"parity": {"kind": "latency"}}}, "suite name 'parity' is taken by [parity]"),
        ({**MINIMAL, "backends": {"a": {"kind": "awq"}}}, "exactly one backend must be the reference, found none"),
        ({**MINIMAL, "backends": {"a/b": {"kind": "reference"}}}, "backend name 'a/b'"),
        ({"suites": {"perplexity": {"backends": ["vllm"]}}}, "names 'vllm'; backends are"),
        ({**MINIMAL, "gates": [{"metric": "*", "margin": -1}]}, "gates.0.margin"),
        ({**MINIMAL, "gates": [{"metric": "*", "margin": float("inf")}]}, "margin: Input should be a finite number"),
        ({**MINIMAL, "telemetry_interval_s": float("inf")}, "telemetry_interval_s: Input should be a finite number"),
        (
            {**MINIMAL, "backends": {"r": {"kind": "reference"}, "a": {"kind": "awq", "quantize": {"bit": 4}}}},
            "unknown key 'backends.a.quantize.bit'; did you mean 'backends.a.quantize.bits'?",
        ),
        (
            {**MINIMAL, "backends": {"r": {"kind": "reference"}, "a": {"kind": "awq", "quantize": {"bits": 5}}}},
            "backends.a.quantize.bits: Input should be 2, 3, 4 or 8, got 5",
        ),
        ({**MINIMAL, "gates": {"metric": "*", "margin": 1}}, "gates: Input should be a list, [[gates]]: one table for"),
        ({**MINIMAL, "noise_floor": False}, "noise_floor: Input should be a table, [noise_floor], got False"),
        ({"suites": {"perplexity": "x"}}, "suites.perplexity: Input should be a table, [suites.perplexity], got 'x'"),
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
    path.write_text('cache = "reference"\n[suites.perplexity]\n')
    with pytest.raises(UserError, match=r"cache: Input should be a table, \[cache\], got 'reference'"):
        load_spec(path, {"cache.responses": "off"})


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


def test_the_domains_preset_calibrates_on_what_it_does_not_measure() -> None:
    spec = parse_spec(tomllib.loads(preset_text("domains")))
    calibrated = {spec.quantize_for(name).calibration for name in ("awq-wikipedia", "awq-python")}
    measured = {(suite.kind, suite.text) for suite in spec.suites.values()}  # type: ignore[union-attr]
    assert calibrated == {"gensim-wikipedia[:50%]", "pydoc-topics[:50%]"}
    assert measured == {
        (kind, text)
        for kind in ("perplexity", "divergence")
        for text in ("gensim-wikipedia[50%:]", "pydoc-topics[50%:]")
    }


def test_unknown_preset() -> None:
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        preset_text("smok")


def test_backend_overrides_of_quantize() -> None:
    spec = parse_spec(
        {**MINIMAL, "backends": {"r": {"kind": "reference"}, "a3": {"kind": "awq", "quantize": {"bits": 3}}}}
    )
    assert spec.quantize_for("a3").bits == 3
    assert spec.quantize.bits == 4


def test_a_backend_is_made_by_its_own_method_then_the_general_one_then_its_kind() -> None:
    names, kinds = ("awq", "rtn", "gptq", "both"), ("awq", "rtn", "gptq", "awq+gptq")
    backends = {
        "reference": {"kind": "reference"},
        **{name: {"kind": kind} for name, kind in zip(names, kinds, strict=True)},
    }
    plain = parse_spec({**MINIMAL, "backends": backends})
    assert [plain.quantize_for(name).method for name in names] == list(kinds)
    general = parse_spec({**MINIMAL, "backends": backends, "quantize": {"method": "awq+gptq"}})
    assert [general.quantize_for(name).method for name in names] == ["awq+gptq", *kinds[1:]]
    backends["rtn"] = {"kind": "rtn", "quantize": {"method": "gptq"}}
    assert parse_spec({**MINIMAL, "backends": backends}).quantize_for("rtn").method == "gptq"
    assert [general.role_of(name) for name in names] == ["candidate", "control", "candidate", "candidate"]


def test_quantize_settings() -> None:
    assert parse_quantize({"bits": 3}).bits == 3
    assert parse_quantize({"max_memory": "8GB"}).max_memory == 8 * 10**9
    assert parse_quantize({"max_memory": "500MiB"}).max_memory == 500 * 2**20
    assert parse_quantize({"group_size": -1}).group_size == -1
    with pytest.raises(UserError, match=r"quantize\.bits: Input should be 2, 3, 4 or 8, got 7"):
        parse_quantize({"bits": 7})
    with pytest.raises(UserError, match=r"did you mean 'quantize\.group_size'"):
        parse_quantize({"groupsize": 7})
