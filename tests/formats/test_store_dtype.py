"""Tensors that are not quantized keep their source's type where that loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from awqbench.formats.checkpoint import write_checkpoint
from awqbench.sources.tiny import make_tiny


@pytest.mark.parametrize("scaled", [False, True])
def test_half_precision_sources_stay_half_unless_a_value_would_change(tmp_path: Path, scaled: bool) -> None:
    from transformers import AutoModelForCausalLM

    make_tiny(tmp_path / "m", hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float16).save_pretrained(tmp_path / "half")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    norm = "model.layers.0.input_layernorm.weight"
    if scaled:
        with torch.no_grad():
            model.get_parameter(norm).div_(3.0)
    write_checkpoint(tmp_path / "out", tmp_path / "half", model, {}, bits=4, group_size=32)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == torch.float16
    assert stored[norm].dtype == (torch.float32 if scaled else torch.float16)
    assert torch.equal(stored[norm].float(), model.get_parameter(norm))
