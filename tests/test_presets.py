"""Presets, and what an audit makes of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.policies import declared, refuse_unmeasured
from awqbench.presets import audit_engine, audit_spec, preset_text
from awqbench.resources import content
from awqbench.spec import parse_spec

NAMES = sorted(path.stem for path in (content("suites") / "presets").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_spec_and_takes_a_model(name: str) -> None:
    import tomllib

    spec = parse_spec(tomllib.loads(preset_text(name, 'a "quoted" \U0001f389 model')))
    assert spec.model.source == 'a "quoted" \U0001f389 model'
    refuse_unmeasured(declared(spec), spec)


def folder(place: Path, **config: Any) -> Path:
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return place


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}


def test_an_audit_runs_a_checkpoint_in_what_reads_it(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF\x03\x00\x00\x00")
    assert audit_engine(folder(tmp_path / "awq", quantization_config=AWQ)) == "awq"
    assert audit_engine(gguf) == "llamacpp"
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
    assert audit_engine(folder(tmp_path / "gptq", quantization_config=gptq)) == "gptq"
    assert audit_engine(folder(tmp_path / "ordered", quantization_config={**gptq, "desc_act": True})) == "gptqmodel"
    marlin = {**gptq, "checkpoint_format": "marlin"}
    assert audit_engine(folder(tmp_path / "marlin", quantization_config=marlin)) == "gptqmodel"
    assert audit_engine(folder(tmp_path / "other", quantization_config={"quant_method": "fp8"})) == "transformers"
    spec = audit_spec("smoke", gguf, "tiny-random")
    assert (spec.backends["checkpoint"].kind, spec.backends["checkpoint"].checkpoint) == ("llamacpp", str(gguf))
    assert audit_spec("smoke", tmp_path / "awq", "tiny-random", "vllm").backends["checkpoint"].kind == "vllm"
    # What is audited is judged, also by the kind that elsewhere is a control.
    assert audit_spec("smoke", tmp_path / "awq", "tiny-random", "rtn").role_of("checkpoint") == "candidate"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "model.bin"
    other.write_bytes(b"PK")
    for path, engine, message in (
        (tmp_path / "none", None, "no checkpoint at"),
        (other, None, "is no GGUF file"),
        (folder(tmp_path / "plain"), None, "no quantization_config"),
        (folder(tmp_path / "awq", quantization_config=AWQ), "openai", "runs no existing checkpoint"),
        (tmp_path / "awq", "vlm", "did you mean 'vllm'"),
    ):
        with pytest.raises(UserError, match=message):
            audit_spec("smoke", path, "tiny-random", engine)
