import struct

import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats.shards import Shards, save_shards, weights_hash


def test_entries_describe_without_reading(tmp_path):
    save_shards({"a": torch.zeros(3, 5, dtype=torch.float16), "b": torch.zeros(2)}, tmp_path, 10**9)
    entries = Shards(tmp_path).entries
    assert {name: (e.dtype, e.shape, e.nbytes, e.elements) for name, e in entries.items()} == {
        "a": ("F16", (3, 5), 30, 15),
        "b": ("F32", (2,), 8, 2),
    }


@pytest.mark.parametrize("content", [b"", b"\x08", struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"[]", b"x" * 64])
def test_a_file_that_is_no_safetensors_file(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not a safetensors file"):
        Shards(tmp_path).entries  # noqa: B018


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_a_broken_index(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="is not a safetensors index"):
        Shards(tmp_path).entries  # noqa: B018


def test_the_hash_follows_names_and_contents(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = weights_hash(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert weights_hash(tmp_path) == first
    file.write_bytes(b"two")
    assert weights_hash(tmp_path) != first
    file.write_bytes(b"one")
    file.rename(tmp_path / "other.safetensors")
    assert weights_hash(tmp_path) != first


def test_the_hash_of_nothing(tmp_path):
    with pytest.raises(UserError, match="no weight files"):
        weights_hash(tmp_path)
