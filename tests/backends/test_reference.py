"""The reference must be the model, not part of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from awqbench.backends.reference import ReferenceBackend
from awqbench.backends.torch_engine import log_softmax
from awqbench.errors import UserError

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": None}


def test_a_model_that_lacks_weights_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_llama, folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "down_proj" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 2 weights, first model\.layers\.0\.mlp\.down_proj\.weight"):
        ReferenceBackend().load({**OPTIONS, "weights": str(folder)})


def test_a_whole_model_with_tied_embeddings_lacks_nothing(tiny_llama: Path) -> None:
    description = ReferenceBackend().load({**OPTIONS, "weights": str(tiny_llama)})
    assert description["device_uuid"] is None


def test_the_mass_of_a_large_vocabulary_is_one() -> None:
    logits = 4 * torch.randn(64, 49_152, generator=torch.Generator().manual_seed(0))
    found = log_softmax(logits)
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(1), 1.0, atol=2e-6)
    np.testing.assert_allclose(found, torch.log_softmax(logits.double(), -1), atol=4e-6)
    assert np.abs((found - torch.log_softmax(logits.double(), -1).numpy()).mean()) < 3e-7
