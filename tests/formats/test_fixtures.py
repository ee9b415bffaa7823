"""Checkpoints that other tools made (fixtures/*/SOURCE.md) give the logits that those tools' own tensors stand for."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from awqbench.attribution.dense import load_candidate
from awqbench.errors import UserError
from awqbench.formats.load import load_quantized, read_quantized

FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())
NAMES = [path.name for path in FIXTURES]
ORDERED = [path for path in FIXTURES if path.name.endswith("-actorder")]
NEIGHBOURS = [path for path in FIXTURES if path not in ORDERED]


def same_logits(folder, model):
    expected = load_file(folder / "logits.safetensors")
    with torch.no_grad():
        got = model(expected["input_ids"]).logits
    return (got - expected["logits"]).norm() < 1e-5 * expected["logits"].norm()


@pytest.mark.parametrize("folder", NEIGHBOURS, ids=[path.name for path in NEIGHBOURS])
def test_the_logits_are_the_same(folder):
    assert same_logits(folder, load_quantized(folder))


@pytest.mark.parametrize("folder", FIXTURES, ids=NAMES)
def test_the_dense_model_gives_the_same_logits(folder):
    model, packed = load_candidate(folder)
    assert len(packed) == 14
    assert same_logits(folder, model)


@pytest.mark.parametrize("folder", ORDERED, ids=[path.name for path in ORDERED])
def test_an_activation_order_is_read_and_not_multiplied(folder):
    assert all(tensor.order is not None for tensor in read_quantized(folder).values())
    with pytest.raises(UserError, match=r"activation order .desc_act., which is not multiplied"):
        load_quantized(folder)


@pytest.mark.parametrize("folder", FIXTURES, ids=NAMES)
def test_all_linears_of_both_layers_are_read(folder):
    found = read_quantized(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert len(found) == 14
    assert {tensor.bits for tensor in found.values()} == {config.get("bits", 4)}
    size = config.get("group_size", 32)
    assert all(t.group_size == (t.codes.shape[1] if size == -1 else size) for t in found.values())
    symmetric = all(bool((tensor.zeros == 1 << (tensor.bits - 1)).all()) for tensor in found.values())
    assert symmetric is folder.name.endswith("-sym")
