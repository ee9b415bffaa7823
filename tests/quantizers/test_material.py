"""Everyone gets the same windows and a configuration that old and new readers understand alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch


def test_the_first_draw_is_the_protocol(script: Callable[[str], ModuleType]) -> None:
    ids = torch.arange(1000)
    windows = script("material").calibration_windows(ids, 8, 16, 0, 3)
    assert windows[:, 0].tolist() == [i * ((1000 - 16) // 8) for i in range(8)]
    assert windows.shape == (8, 16)


def test_every_draw_lies_in_the_text_and_differs(script: Callable[[str], ModuleType]) -> None:
    material, ids = script("material"), torch.arange(997)
    draws = [material.calibration_windows(ids, 7, 30, draw, 5) for draw in range(5)]
    starts = torch.stack(draws)[:, :, 0]
    assert int(starts.max()) + 30 <= 997
    assert len(set(starts.flatten().tolist())) == starts.numel()


def test_transformers_4_finds_rope_theta(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}))
    (model / "tokenizer.json").write_text("{}")
    made = script("material").readable_by_all(model, tmp_path / "linked")
    assert json.loads((made / "config.json").read_text())["rope_theta"] == 5e5
    assert (made / "tokenizer.json").read_text() == "{}"
