"""`awqbench quantize`: its help can be read, its mistakes are one line, and none of them starts any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqbench.cli import app
from awqbench.errors import UserError
from awqbench.spec import QuantizeSpec


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["quantize", *map(str, arguments)])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_help_has_panels_examples_and_every_setting() -> None:
    shown = CliRunner().invoke(app, ["quantize", "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert shown.exit_code == 0
    for panel in ("Recipe", "Calibration", "Mixed precision", "Running"):
        assert panel in shown.output
    assert "Example" in shown.output
    assert "hub:OWNER/NAME[:CONFIG][:SPLIT]" in re.sub(r"\s+", " ", shown.output)
    for key in QuantizeSpec.model_fields:
        assert f"--{key.replace('_', '-')}" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "smooth"), "quantize.method: Input should be 'rtn', 'awq', 'gptq' or 'awq+gptq', got 'smooth'"),
        (("--bits", 5), "quantize.bits: Input should be 2, 3, 4 or 8, got 5"),
        (("--group-size", 0), "group_size is 0 (allowed: 1 or more, or -1"),
        (("--format", "gguf"), "'awq' or 'compressed-tensors', got 'gguf'"),
        (("--bits", 8), "autoawq format holds codes of at most 4 bits, not 8 (allowed: format compressed-tensors)"),
        (("--max-memory", "much"), "not an amount of memory (allowed: bytes, or a number with a unit: 8GB, 500MiB)"),
        (("--keep-worst", 2, "--bits-budget", 5), "(allowed: one of them)"),
        (("--keep-worst", 2, "--keep-bits", 12), "keep_bits: Input should be 16 or 8, got 12"),
        (("--overrides", "none.toml"), "no overrides file at none.toml"),
        (("--calibration", "none/here.jsonl"), "no text file at none/here.jsonl"),
        (("--calibration", "pydoc-topic"), "did you mean 'pydoc-topics'"),
        (("--calibration", "hub:owner/name"), "HF_HUB_OFFLINE is set"),
        (("--calibration", "hub:name"), "allowed: hub:OWNER/NAME[:CONFIG][:SPLIT]"),
        (("--calibration", "pydoc-topics", "--text-field", "body"), "plain text and has no field 'body'"),
    ],
)  # fmt: skip
def test_mistakes(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], message: str
) -> None:
    from awqbench.sources.hub import hub_refusal

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_refusal.cache_clear()
    said = refused(tiny_llama, "--out", tmp_path / "out", *arguments)
    hub_refusal.cache_clear()
    assert message in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken(tiny_llama: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    assert "exists already: choose another --out" in refused(tiny_llama, "--out", taken)
    (tmp_path / "begun.partial").mkdir()
    assert "unfinished checkpoint: go on with --resume" in refused(tiny_llama, "--out", tmp_path / "begun")
