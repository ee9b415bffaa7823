from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from awqbench.errors import UserError
from awqbench.modeling.skeleton import skeleton
from awqbench.modeling.weights import Weights
from awqbench.quantization.blocks import find_blocks

IDS = torch.arange(20).unsqueeze(0)


def test_a_block_gets_the_weights_that_from_pretrained_would_give_it(saved: tuple[PreTrainedModel, Path]) -> None:
    model, folder = saved
    empty = skeleton(folder)
    weights = Weights(folder, empty)
    stack, blocks = find_blocks(model)
    for index, block in enumerate(blocks):
        name = f"{stack}.{index}"
        weights.load(name)
        loaded = empty.get_submodule(name)
        for path, tensor in block.state_dict().items():
            assert torch.equal(loaded.state_dict()[path], tensor)
        weights.release(name)
        assert all(parameter.is_meta for parameter in empty.parameters())


def test_all_of_it_together_is_the_model(saved: tuple[PreTrainedModel, Path]) -> None:
    model, folder = saved
    empty = skeleton(folder)
    Weights(folder, empty).load("")
    empty.tie_weights()
    assert torch.equal(empty(IDS).logits, model(IDS).logits)


def test_every_tensor_of_the_files_has_its_place(saved: tuple[PreTrainedModel, Path]) -> None:
    _, folder = saved
    weights = Weights(folder, skeleton(folder))
    assert sorted(name for names in weights.sources.values() for name in names) == sorted(weights.files.entries)
    assert weights.bytes_of("") == sum(entry.nbytes for entry in weights.files.entries.values())


def test_originals_are_known_where_they_are_not_merged(mixtral: tuple[PreTrainedModel, Path]) -> None:
    model, folder = mixtral
    weights = Weights(folder, skeleton(folder))
    name = "model.layers.1.input_layernorm.weight"
    original = weights.original(name)
    assert original is not None
    assert torch.equal(original, model.get_parameter(name))
    assert weights.original("model.layers.1.mlp.experts.gate_up_proj") is None
    assert len(weights.sources["model.layers.1.mlp.experts.gate_up_proj"]) == 6


def test_missing_and_misshapen_weights_are_named(llama: tuple[PreTrainedModel, Path]) -> None:
    model, folder = llama
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    state = {name: tensor for name, tensor in model.state_dict().items() if "up_proj" not in name}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(UserError, match=r"lacks 2 of its weights: model\.layers\.0\.mlp\.up_proj\.weight"):
        Weights(folder, skeleton(folder))

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["model.layers.0.mlp.up_proj.weight"] = torch.zeros(7, 32)
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(UserError, match=r"up_proj\.weight is \[7, 32\], config\.json wants \[48, 32\]"):
        Weights(folder, skeleton(folder)).load("model.layers.0")


def test_pickles_are_refused_unless_asked_for(llama: tuple[PreTrainedModel, Path]) -> None:
    model, folder = llama
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    torch.save({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle.*--allow-pickle"):
        Weights(folder, skeleton(folder))
    empty = skeleton(folder)
    Weights(folder, empty, allow_pickle=True).load("")
    empty.tie_weights()
    assert torch.equal(empty(IDS).logits, model(IDS).logits)


def test_a_pickle_that_would_run_code_is_not_run(llama: tuple[PreTrainedModel, Path], tmp_path: Path) -> None:
    _, folder = llama
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    torch.save({"weight": _Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"cannot read .*pytorch_model\.bin"):
        Weights(folder, skeleton(folder), allow_pickle=True)
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return open, (str(self._path), "w")
