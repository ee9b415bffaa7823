"""The same model and the same token windows for everyone, as files any environment can read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from awqbench.sources.models import load_tokenizer

TEST_WINDOWS, TEST_TOKENS = 4, 1024


def token_ids(model_dir: Path, text: Path) -> Tensor:
    """A whole file as one stream of ids [tokens], no special tokens added."""
    tokenizer = load_tokenizer(model_dir)
    encoded = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False)
    return torch.tensor(encoded["input_ids"], dtype=torch.int64)


def calibration_windows(ids: Tensor, windows: int, tokens: int, draw: int, draws: int) -> Tensor:
    """Windows [windows, tokens], evenly spread; draw d of D shifts them all by d / D of the distance between two."""
    stride = (ids.numel() - tokens) // windows
    shift = stride * draw // draws
    return torch.stack([ids[start : start + tokens] for start in range(shift, shift + windows * stride, stride)])


def test_windows(ids: Tensor) -> Tensor:
    """The first windows of the test text, [4, 1024]."""
    return ids[: TEST_WINDOWS * TEST_TOKENS].view(TEST_WINDOWS, TEST_TOKENS)


def readable_by_all(model_dir: Path, out: Path) -> Path:
    """The model's folder, by links, with a config.json that transformers 4 reads as 5 does.

    transformers 5 keeps rope_theta inside rope_parameters; version 4 looks beside it and silently takes 10000 instead.
    """
    out.mkdir(exist_ok=True)
    for file in model_dir.iterdir():
        if file.name != "config.json" and not (out / file.name).exists():
            (out / file.name).symlink_to(file.resolve())
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    config |= {key: value for key, value in config.get("rope_parameters", {}).items() if key == "rope_theta"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return out
