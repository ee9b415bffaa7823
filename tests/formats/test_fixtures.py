"""Checkpoints that other tools made (fixtures/*/SOURCE.md) give the logits that those tools' own tensors stand for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from awqbench.formats.load import load_quantized, read_quantized

FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FIXTURES, ids=[path.name for path in FIXTURES])
def test_the_logits_are_the_same(folder):
    expected = load_file(folder / "logits.safetensors")
    with torch.no_grad():
        got = load_quantized(folder)(expected["input_ids"]).logits
    assert (got - expected["logits"]).norm() < 1e-5 * expected["logits"].norm()


@pytest.mark.parametrize("folder", FIXTURES, ids=[path.name for path in FIXTURES])
def test_all_linears_of_both_layers_are_read(folder):
    found = read_quantized(folder)
    assert len(found) == 14
    assert {(tensor.bits, tensor.group_size) for tensor in found.values()} == {(4, 32)}
    symmetric = all(bool((tensor.zeros == 8).all()) for tensor in found.values())
    assert symmetric is folder.name.endswith("-sym")
