"""The quantizer's request: plain data that survive JSON, and every setting in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.executors.request import check_settings, request
from awqbench.sources.calibration import read_documents
from awqbench.spec import QuantizeSpec, parse_quantize


def flat(value: object) -> list[object]:
    return [leaf for part in value.values() for leaf in flat(part)] if isinstance(value, dict) else [value]


def test_every_setting_reaches_the_quantizer(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text('{"body": "One."}\n{"body": "Two."}\n')
    (tmp_path / "groups.toml").write_text("")
    values = {
        "method": "gptq", "bits": 3, "group_size": 32, "symmetric": True, "clip": False, "search": "module",
        "damping": 0.07, "grouped_queries": True,
        "calibration": str(tmp_path / "chat.jsonl"), "text_field": "body", "chat_template": True,
        "protocol": "documents", "samples": 11, "seq_len": 77, "format": "compressed-tensors", "keep_worst": 5,
        "keep_bits": 8, "max_memory": 123456789, "workers": 13, "overrides": str(tmp_path / "groups.toml"),
        "indivisible": "keep", "dtype": "bfloat16", "allow_pickle": True, "keep": ["lm_head"],
    }  # fmt: skip
    assert set(values) | {"bits_budget"} == set(QuantizeSpec.model_fields)
    asked = request(parse_quantize(values), Path("model"), Path("out"), tmp_path, seed=9)
    assert json.loads(json.dumps(asked)) == asked
    for key, value in values.items():
        assert key in ("text_field", "calibration") or value in flat(asked), key
    assert asked["recipe"]["seed"] == 9
    assert asked["calibration"]["name"].startswith("chat-")  # never the path: checkpoints are published
    assert read_documents(Path(asked["documents"])) == ["One.\n\n", "Two.\n\n"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 8}, "at most 4 bits"),
        ({"bits": 4, "keep_worst": 1, "keep_bits": 8}, "at most 4 bits"),
        ({"bits": 8, "format": "compressed-tensors", "keep_worst": 1, "keep_bits": 8}, "allowed: more bits"),
        ({"bits_budget": 4.01}, "4.01"),
        ({"overrides": "none.toml"}, "no overrides file"),
    ],
)
def test_what_needs_no_model_to_be_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(parse_quantize(settings))
    check_settings(parse_quantize({"keep_bits": 8}))  # without linears to keep, eight bits are never written
