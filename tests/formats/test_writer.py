from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from awqbench.errors import UserError
from awqbench.formats.shards import INDEX, Shards
from awqbench.formats.writer import Stored, write_folder

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8, torch.bool]


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=3), st.sampled_from(TYPES)), max_size=8))
@settings(max_examples=30, deadline=None)
def test_files_are_what_the_safetensors_package_reads(
    tmp_path_factory: pytest.TempPathFactory, described: list[tuple[list[int], torch.dtype]]
) -> None:
    out = tmp_path_factory.mktemp("w") / "out"
    tensors = {f"t{i}": (torch.randn(shape) * 9).to(dtype) for i, (shape, dtype) in enumerate(described)}
    if not tensors:
        tensors = {"only": torch.ones(3)}
    write_folder(out, {name: Stored.of(tensor) for name, tensor in tensors.items()}, {"quantize.json": "{}"}, out)
    read = load_file(out / "model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_several_shards_have_an_index(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(5)}
    stored = {name: Stored.of(tensor) for name, tensor in tensors.items()}
    write_folder(tmp_path / "out", stored, {"quantize.json": "{}"}, tmp_path, max_shard_bytes=90)
    assert len(list((tmp_path / "out").glob("model-*-of-00003.safetensors"))) == 3
    assert (tmp_path / "out" / INDEX).is_file()
    shards = Shards(tmp_path / "out")
    assert all(torch.equal(shards.tensor(name), tensor) for name, tensor in tensors.items())


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def read() -> Tensor:
        nonlocal most
        tensor = torch.ones(4)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    stored = {f"t{i}": Stored((4,), torch.float32, read) for i in range(5)}
    write_folder(tmp_path / "out", stored, {"quantize.json": "{}"}, tmp_path)
    assert most == 1


def test_a_full_disk_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path) -> None:
    def full() -> Tensor:
        raise OSError(28, "No space left on device")

    stored = {"a": Stored.of(torch.ones(4)), "b": Stored((4,), torch.float32, full)}
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "out", stored, {"quantize.json": "{}"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_earlier_checkpoint_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    stored = {"a": Stored.of(torch.ones(4))}
    write_folder(tmp_path / "out", stored, {"quantize.json": "{}"}, tmp_path)
    write_folder(tmp_path / "out", {"b": Stored.of(torch.ones(1))}, {"quantize.json": "{}"}, tmp_path)
    assert list(Shards(tmp_path / "out").entries) == ["b"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(UserError, match="holds something else"):
        write_folder(tmp_path / "photos", stored, {"quantize.json": "{}"}, tmp_path)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_tensor_that_is_not_as_announced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="announced"):
        write_folder(tmp_path / "out", {"a": Stored((3,), torch.float32, lambda: torch.ones(4))}, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_companions_come_along(tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "additional_chat_templates").mkdir(parents=True)
    for name in ("tokenizer.json", "generation_config.json", "additional_chat_templates/rag.jinja", "weights.bin"):
        (source / name).write_text(name)
    write_folder(tmp_path / "out", {"a": Stored.of(torch.ones(1))}, {"quantize.json": "{}"}, source)
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == [
        "additional_chat_templates/rag.jinja", "generation_config.json", "model.safetensors", "quantize.json",
        "tokenizer.json",
    ]  # fmt: skip
