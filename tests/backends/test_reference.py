"""The reference must be the model, not part of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from awqbench.backends.reference import ReferenceBackend
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
