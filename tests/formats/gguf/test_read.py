import json

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from awqbench.errors import UserError
from awqbench.formats.gguf.export import export_gguf
from awqbench.formats.gguf.read import _BLOCKS
from awqbench.formats.summary import inspect_checkpoint


def write(path, tensors):
    """A file with tensors given as rows of bytes of a type, or as float arrays."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_of_ours(made, tmp_path):
    case = made("llama", bits=4)
    export_gguf(case.folder, tmp_path / "x.gguf")
    found = inspect_checkpoint(tmp_path / "x.gguf")
    assert json.loads(json.dumps(found)) == found
    assert (found["format"], found["quantized"], found["architecture"]) == ("gguf", True, "llama")
    assert found["schemes"] == [
        {"type": "Q4_1", "bits": 4, "codes_bits": 4, "group_size": 32, "symmetric": False, "linears": 14,
         "weights": found["quantized_parameters"]}
    ]  # fmt: skip
    assert found["bits_per_weight"] == 5.0
    assert [(row["name"], row["place"], row["dtype"]) for row in found["not_quantized"]] == [
        ("token_embd", "embedding", "F16")
    ]
    assert found["parameters"] == sum(each.numel() for each in case.model.parameters())
    assert found["findings"] == []
    assert inspect_checkpoint(tmp_path)["linears"] == 14  # the folder of a single file


def test_a_file_that_is_not_quantized(made, tmp_path):
    export_gguf(made("llama", None).folder, tmp_path / "x.gguf")
    found = inspect_checkpoint(tmp_path / "x.gguf")
    assert (found["quantized"], found["linears"], found["schemes"]) == (False, 0, [])


@pytest.mark.parametrize("kind", sorted(_BLOCKS, key=lambda kind: kind.name))
def test_scales_lie_where_the_table_says(kind, tmp_path):
    """A NaN there, and nowhere else, makes a block's weights NaN."""
    size, width = gguf.GGML_QUANT_SIZES[kind]
    rows = np.ones((4, 2 * width), np.uint8)
    healthy = gguf.quants.dequantize(rows, kind)
    assert np.isfinite(healthy).all()
    for offset in _BLOCKS[kind][0]:
        broken = rows.copy()
        broken[1, offset : offset + 2] = np.array([np.nan], np.float16).view(np.uint8)
        weights = gguf.quants.dequantize(broken, kind)
        assert np.isnan(weights[1, :size]).all()
        assert np.isfinite(weights[1, size:]).all()
        write(tmp_path / f"{offset}.gguf", {"blk.0.ffn_up.weight": (kind, broken)})
        (finding,) = inspect_checkpoint(tmp_path / f"{offset}.gguf")["findings"]
        assert (finding["linear"], finding["count"], finding["of"]) == ("blk.0.ffn_up", 1, 8)


def test_dead_and_broken_tensors(tmp_path):
    norm = np.array([1.0, np.inf, 1.0], np.float32)
    tensors = {
        "blk.0.ffn_up.weight": (Type.Q4_0, np.zeros((4, 18), np.uint8)),
        "blk.0.attn_norm.weight": (None, norm),
        "output.weight": (Type.Q8_0, np.ones((4, 34), np.uint8)),
    }
    write(tmp_path / "x.gguf", tensors)
    found = inspect_checkpoint(tmp_path / "x.gguf")
    assert [(row["linear"], row["what"], row["count"], row["of"]) for row in found["findings"]] == [
        ("blk.0.ffn_up", "scales are all zero", 4, 4),
        ("blk.0.attn_norm.weight", "values are not finite", 1, 3),
    ]
    assert [row["place"] for row in found["not_quantized"]] == ["head"]


def test_what_is_no_gguf(tmp_path):
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(UserError, match="is no GGUF file"):
        inspect_checkpoint(tmp_path / "notes.txt")
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00")
    with pytest.raises(UserError, match="is not a GGUF file, or is truncated"):
        inspect_checkpoint(tmp_path / "short.gguf")
    (tmp_path / "two.gguf").touch()
    with pytest.raises(UserError, match=r"several GGUF files: name one .short.gguf, two.gguf"):
        inspect_checkpoint(tmp_path)
