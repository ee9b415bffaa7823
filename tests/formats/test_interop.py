"""Our checkpoints through the compressed-tensors package and through transformers, which uses it."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.load import load_quantized, read_quantized

pytest.importorskip("compressed_tensors")

IDS = torch.arange(2, 30)[None]


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def in_transformers(folder):
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["llama-untied", "opt"])
@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric"), [(4, 32, False), (4, 32, True), (3, 32, True), (2, 32, False), (8, -1, False)]
)
def test_transformers_loads_ours(kind, bits, group_size, symmetric, written):
    """With zero points it dequantizes in the scales' float16, hence the tolerance."""
    case = written(kind, format_name="compressed-tensors", bits=bits, group_size=group_size, symmetric=symmetric)
    got, expected = logits(in_transformers(case.out)), logits(load_quantized(case.out))
    assert (got - expected).norm() < (1e-5 if symmetric else 1e-3) * expected.norm()


def test_transformers_loads_mixed_precision(written):
    mixed = {"model.layers.1.mlp.down_proj": Scheme(8, 32, True), "model.layers.0.mlp.up_proj": Scheme(3, -1, True)}
    case = written("llama-untied", format_name="compressed-tensors", symmetric=True, mixed=mixed)
    got, expected = logits(in_transformers(case.out)), logits(load_quantized(case.out))
    assert (got - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_packages_own_converter_of_autoawq_checkpoints_agrees(symmetric, written, tmp_path):
    """An AutoAWQ checkpoint of ours, converted by it, holds what we write as compressed-tensors ourselves."""
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    case = written("llama-untied", symmetric=symmetric)
    config = json.loads((case.out / "config.json").read_text())
    converter = AutoAWQConverter.from_autoawq_config(config["quantization_config"])
    converted = converter.process(load_file(case.out / "model.safetensors"))
    for name, quantized in case.quantized.items():
        ours = layout("compressed-tensors").pack(quantized, Scheme(4, 32))
        for suffix, tensor in ours.items():
            assert torch.equal(converted[f"{name}.{suffix}"], tensor), (name, suffix)

    folder = tmp_path / "converted"
    folder.mkdir()
    quantization = json.loads(converter.update_config(None).model_dump_json())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    save_file({name: tensor.contiguous() for name, tensor in converted.items()}, folder / "model.safetensors")
    assert torch.equal(logits(load_quantized(folder)), logits(load_quantized(case.out)))
    back = read_quantized(folder)
    assert all(torch.equal(back[name].dequantize(), case.quantized[name].dequantize()) for name in case.quantized)
