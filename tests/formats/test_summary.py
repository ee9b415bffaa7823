import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats.scheme import Scheme
from awqbench.formats.summary import inspect_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("bits", [3, 4])
def test_sizes_and_recipe(bits, written):
    case = written(bits=bits)
    found = inspect_checkpoint(case.out)
    assert json.loads(json.dumps(found)) == found
    assert (found["architecture"], found["format"], found["quantized"]) == ("LlamaForCausalLM", "autoawq", True)
    assert (found["bits"], found["effective_bits"], found["group_size"], found["symmetric"]) == (4, bits, 32, False)
    weights = sum(tensor.codes.numel() for tensor in case.quantized.values())
    assert found["linears"] == 14
    assert found["quantized_parameters"] == weights
    assert found["parameters"] == sum(p.numel() for p in case.model.parameters())
    assert found["bytes"]["codes"] == weights // 2
    assert found["bytes"]["scales"] == weights // 32 * 2
    assert found["bytes"]["matrices"] == 96 * 64 * 4
    assert found["bits_per_weight"] == 4 + (16 + 4) / 32
    assert found["quantized_linears"]["model.layers.0.mlp.down_proj"]["shape"] == [64, 96]
    assert found["not_quantized"] == [
        {"name": "model.embed_tokens", "place": "embedding", "shape": [96, 64], "dtype": "F32"}
    ]
    assert found["quantization"]["version"] == "gemm"
    assert found["recipe"]["recipe"] == {"method": "rtn"}
    assert found["findings"] == []


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_compressed_tensors(bits, symmetric, written):
    found = inspect_checkpoint(
        written("llama-untied", format_name="compressed-tensors", bits=bits, symmetric=symmetric).out
    )
    (scheme,) = found["schemes"]
    assert (scheme["bits"], scheme["codes_bits"], scheme["symmetric"]) == (bits, bits, symmetric)
    assert (scheme["linears"], scheme["group_size"], found["findings"]) == (14, 32, [])
    assert {row["name"]: row["place"] for row in found["not_quantized"]} == {
        "lm_head": "head", "model.embed_tokens": "embedding",
    }  # fmt: skip


def test_per_channel(written):
    found = inspect_checkpoint(written(group_size=-1).out)
    assert (found["group_size"], found["findings"], len(found["schemes"])) == (-1, [], 1)


@pytest.mark.parametrize("bits", [3, 4])
def test_symmetric_codes_in_a_layout_that_always_has_zero_points(bits, written):
    assert inspect_checkpoint(written(bits=bits, symmetric=True).out)["symmetric"] is True


def test_mixed_precision_and_a_linear_of_a_block_that_is_kept(written):
    wide, kept = Scheme(8, 32, True), "model.layers.1.mlp.up_proj"
    mixed = {"model.layers.0.mlp.down_proj": wide, "model.layers.1.mlp.down_proj": wide}
    case = written(format_name="compressed-tensors", symmetric=True, mixed=mixed, kept=("lm_head", kept))
    found = inspect_checkpoint(case.out)
    assert [(row["bits"], row["linears"]) for row in found["schemes"]] == [(4, 11), (8, 2)]
    assert [row["name"] for row in found["not_quantized"] if row["place"] == "block"] == [kept]
    assert found["findings"] == []


@pytest.mark.parametrize("kind", ["gpt-neox", "opt", "gpt2"])
def test_other_architectures_look_sound(kind, written):
    found = inspect_checkpoint(written(kind).out)
    assert found["findings"] == []
    assert not [row for row in found["not_quantized"] if row["place"] == "block"]


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_checkpoints_of_other_tools_look_sound(folder):
    found = inspect_checkpoint(folder.parent)
    said = json.loads(folder.read_text(encoding="utf-8"))["quantization_config"]
    assert (found["bits"], found["findings"], found["recipe"]) == (said.get("bits", 4), [], None)
    assert (found["effective_bits"], found["linears"]) == (found["bits"], 14)


def test_what_is_not_quantized(tiny_llama):
    found = inspect_checkpoint(tiny_llama)
    assert (found["quantized"], found["format"], found["linears"], found["findings"]) == (False, "safetensors", 0, [])
    assert sum(row["place"] == "block" for row in found["not_quantized"]) == 14


def test_a_method_that_is_not_looked_into(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    found = inspect_checkpoint(folder)
    assert (found["quantized"], found["format"], found["linears"]) == (True, "bitsandbytes", 0)


def test_experts_and_their_router(written):
    """Names alone decide: the checkpoint's tensors are those of a dense model, renamed."""
    from safetensors.torch import load_file, save_file

    case = written()
    tensors = load_file(case.out / "model.safetensors")
    renamed = {name.replace("mlp.", "mlp.experts.0."): tensor for name, tensor in tensors.items()}
    renamed |= {f"model.layers.{layer}.mlp.gate.weight": torch.zeros(8, 64) for layer in (0, 1)}
    save_file(renamed, case.out / "model.safetensors")
    found = inspect_checkpoint(case.out)
    assert "model.layers.0.mlp.experts.0.up_proj" in found["quantized_linears"]
    assert {(row["linear"], row["what"]) for row in found["findings"]} == {
        (f"model.layers.{layer}.mlp.gate", "not quantized, and config.json does not say so") for layer in (0, 1)
    }


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is not a JSON object"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no weights"):
        inspect_checkpoint(tmp_path)


PROGRAM = """
import resource, sys
from awqbench.formats.summary import inspect_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = inspect_checkpoint(sys.argv[1])
assert found["linears"] == 1, found
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_weights(tmp_path):
    """A file of half a GiB of codes, nearly all a hole on the disk, is inspected in a fraction of that."""
    inputs, words, groups = 32768, 4096, 64
    sizes = {"qweight": ("I32", [inputs, words], 4), "qzeros": ("I32", [groups, words], 4),
             "scales": ("F16", [groups, words * 8], 2)}  # fmt: skip
    header, end = {}, 0
    for suffix, (dtype, shape, width) in sizes.items():
        begin, end = end, end + shape[0] * shape[1] * width
        header[f"model.layers.0.mlp.up_proj.{suffix}"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + b"\x10\x32")
        stream.truncate(8 + len(text) + end)
    said = {"quant_method": "awq", "bits": 4, "group_size": 512, "zero_point": True}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    unit = 1024 if sys.platform == "darwin" else 1  # kilobytes, but bytes on macOS
    assert int(done.stdout) / unit < 200_000


@pytest.mark.parametrize(("group_size", "degrees"), [(16, [2]), (32, []), (-1, [2, 4])])
def test_the_numbers_of_devices_that_can_share_it(group_size, degrees, written):
    # 64 to 96 and back: 96 inputs are 6 groups of 16 or 3 of 32; 96 outputs are 12 words of eight, 32 of keys are 4.
    case = written("llama-untied", format_name="compressed-tensors", group_size=group_size)
    assert inspect_checkpoint(case.out)["tensor_parallel"] == degrees
