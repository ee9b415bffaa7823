from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqbench.attribution.dense import load_candidate, load_reference
from awqbench.attribution.parametrization import unrounded
from awqbench.errors import UserError
from awqbench.formats.load import load_quantized


def off(tensor: Tensor, expected: Tensor) -> float:
    return float((tensor - expected).norm() / expected.norm())


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2", "mixtral"])
def test_with_all_put_back_the_model_is_the_reference(
    save_model: Any, save_quantized: Any, ids: Tensor, tmp_path: Path, architecture: str
) -> None:
    source = save_model(architecture, tmp_path / "model")
    made = save_quantized(source, tmp_path / "awq")
    batch = ids[:40].unsqueeze(0)
    model, packed = load_candidate(made)
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()(batch).logits
        assert off(model(batch).logits, load_quantized(made, kernel="dequantize")(batch).logits) < 1e-6
        assert off(model(batch).logits, wanted) > 1e-3
    found = unrounded(load_reference(source, model), model, batch)
    assert found.scaled > 0
    assert found.notes == []
    for name in packed:
        # Rounding to 4 bits moves a weight by some 10 %; a scale that was not undone by far more.
        assert off(model.get_submodule(name).weight, found.weights[f"{name}.weight"]) < 0.2, name
    for name, weight in found.weights.items():
        model.get_parameter(name).data = weight
    with torch.no_grad():
        assert off(model(batch).logits, wanted) < 1e-4


def test_scales_come_out_as_they_went_in(llama: Path, save_quantized: Any, ids: Tensor, tmp_path: Path) -> None:
    """Without rounding there is nothing left to attribute: the scaled model, in full precision."""
    from awqbench.quantization.calibrate import cut_windows
    from awqbench.quantization.pipeline import quantize_model
    from awqbench.quantization.recipe import Recipe

    recipe = Recipe(group_size=16, grouped_queries=True)
    quantize_model(llama, tmp_path / "scaled", recipe, windows=cut_windows(ids, 4, 32), scaled_only=True)
    model, packed = load_candidate(tmp_path / "scaled")
    assert packed == {}
    found = unrounded(load_reference(llama, model), model, ids[:20].unsqueeze(0))
    assert found.scaled > 0
    for name, weight in found.weights.items():
        assert off(model.get_parameter(name), weight) < 1e-5, name


def test_plain_rounding_is_held_against_the_reference_itself(llama: Path, save_quantized: Any, tmp_path: Path) -> None:
    model, packed = load_candidate(save_quantized(llama, tmp_path / "rtn", method="rtn"))
    reference = load_reference(llama, model)
    found = unrounded(reference, model, torch.arange(3, 20).unsqueeze(0))
    assert found.scaled == 0
    assert len(packed) == 14
    assert all(torch.equal(weight, reference.get_parameter(name)) for name, weight in found.weights.items())


def test_what_no_scale_explains_is_said(llama: Path) -> None:
    model, _ = load_candidate(llama)
    reference = load_reference(llama, model)
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").mul_(1.5)
    notes = unrounded(reference, model, torch.arange(3, 20).unsqueeze(0)).notes
    assert notes == ["model.embed_tokens.weight is 50% off the reference's, and no scale explains it"]


def test_another_architecture_is_refused(llama: Path, save_model: Any, tmp_path: Path) -> None:
    model, _ = load_candidate(llama)
    reference = load_reference(save_model("qwen2", tmp_path / "other"), model)
    with pytest.raises(UserError, match=r"k_proj\.weight \[32, 64\] is \[64, 64\] in the reference"):
        unrounded(reference, model, torch.arange(3, 20).unsqueeze(0))


def test_a_quantized_reference_is_refused(llama_awq: Path) -> None:
    with pytest.raises(UserError, match="is quantized itself"):
        load_reference(llama_awq, nn.Module())
