import json

import gguf
import numpy as np
import pytest
import torch

from awqbench.errors import UserError
from awqbench.formats.gguf.architecture import Architecture
from awqbench.formats.gguf.export import export_gguf
from awqbench.formats.shards import Shards

_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v", "mlp.down_proj": "ffn_down"}


def read(path):
    reader = gguf.GGUFReader(path)
    weights = {}
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        weights[tensor.name] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    return reader, weights


def unpermuted(rows, heads):
    """llama.cpp's order of a query or key head's rows, undone."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize(
    ("format_name", "scheme", "kind"),
    [
        ("autoawq", {}, "Q4_1"),
        ("autoawq", {"symmetric": True}, "Q4_0"),
        ("compressed-tensors", {"bits": 3}, "Q4_1"),
        ("compressed-tensors", {"bits": 8, "symmetric": True}, "Q8_0"),
        ("compressed-tensors", {"bits": 4, "group_size": -1}, "Q4_1"),
    ],
)
def test_the_file_holds_the_dequantized_weights(made, tmp_path, format_name, scheme, kind):
    case = made("llama", format_name, **scheme)
    report = export_gguf(case.folder, tmp_path / "out" / "x.gguf")
    reader, weights = read(tmp_path / "out" / "x.gguf")
    assert report["types"] == {kind: 14, "F16": 1, "F32": 5}
    assert report["bytes"] == (tmp_path / "out" / "x.gguf").stat().st_size
    assert report["rounding"] == 0 if kind != "Q4_1" else 0 < report["rounding"] < 1e-3
    tolerance = {"rtol": 0, "atol": 0} if kind != "Q4_1" else {"rtol": 0, "atol": 2e-3}
    for name, target in _NAMES.items():
        found = weights[f"blk.1.{target}.weight"]
        if target == "attn_q":
            found = unpermuted(found, 4)
        wanted = case.model.get_submodule(f"model.layers.1.{name}").weight.numpy(force=True)
        np.testing.assert_allclose(found, wanted, **tolerance)
    embedding = case.model.get_input_embeddings().weight.half().float().numpy(force=True)
    np.testing.assert_array_equal(weights["token_embd.weight"], embedding)
    norm = case.model.model.layers[0].input_layernorm.weight.numpy(force=True)
    np.testing.assert_array_equal(weights["blk.0.attn_norm.weight"], norm)
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "x.gguf"]
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{kind}"]
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["tokenizer.chat_template"] == "{{ x }}"


@pytest.mark.parametrize("scheme", [{"bits": 8}, {"group_size": 16}])
def test_what_fits_no_block_becomes_float16_and_is_told(made, tmp_path, scheme):
    case = made("llama", "compressed-tensors", **scheme)
    report = export_gguf(case.folder, tmp_path / "x.gguf")
    assert report["types"] == {"F16": 15, "F32": 5}
    assert "14 linears" in report["notes"][0]
    assert "stored as float16" in report["notes"][0]


def test_float16_of_everything(made, tmp_path):
    case = made("qwen2")
    report = export_gguf(case.folder, tmp_path / "x.gguf", kind="f16", name="mine")
    reader, weights = read(tmp_path / "x.gguf")
    assert set(report["types"]) == {"F16", "F32"}
    assert reader.get_field("general.name").contents() == "mine"
    query = case.model.model.layers[0].self_attn.q_proj  # rows stay as they are in this family
    np.testing.assert_array_equal(weights["blk.0.attn_q.weight"], query.weight.half().float().numpy(force=True))
    np.testing.assert_array_equal(weights["blk.0.attn_q.bias"], query.bias.numpy(force=True))


@pytest.mark.parametrize("format_name", ["autoawq", None])
@pytest.mark.parametrize(
    ("kind", "types", "tolerance"),
    [
        ("f32", {"F32": 20}, 0.0),
        ("f16", {"F16": 15, "F32": 5}, 2.0**-11),
        # Half a step of 1/127 of a block's largest weight, and the scale's own rounding to float16.
        ("q8_0", {"Q8_0": 15, "F32": 5}, 0.5 / 127 + 2.0**-10),
    ],
)
def test_matrices_of_one_type(made, tmp_path, format_name, kind, types, tolerance):
    case = made("llama", format_name)
    report = export_gguf(case.folder, tmp_path / "x.gguf", kind=kind)
    reader, weights = read(tmp_path / "x.gguf")
    assert report["types"] == types
    expected = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
    assert reader.get_field("general.file_type").contents() == expected.get(kind, gguf.LlamaFileType.MOSTLY_Q8_0)
    if format_name:
        assert (report["rounding"] == 0) == (kind == "f32")
        assert len(report["notes"]) == 1
    for name, module in {
        "token_embd": "model.embed_tokens",
        "blk.1.attn_q": "model.layers.1.self_attn.q_proj",
        "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
    }.items():
        found = weights[f"{name}.weight"]
        if name.endswith("attn_q"):
            found = unpermuted(found, 4)
        wanted = case.model.get_submodule(module).weight.numpy(force=True)
        blocks = np.abs(wanted).reshape(len(wanted), -1, 32).max(-1).repeat(32, axis=1)
        assert (np.abs(found - wanted) <= tolerance * blocks).all()


def test_rows_that_no_block_divides_stay_float16(made, tmp_path, monkeypatch):
    monkeypatch.setattr("awqbench.formats.gguf.export.BLOCK", 64)  # the families' rows are of 64 and 96
    report = export_gguf(made("llama", None).folder, tmp_path / "x.gguf", kind="q8_0")
    assert report["types"] == {"Q8_0": 13, "F16": 2, "F32": 5}


def test_an_unquantized_folder(made, tmp_path):
    case = made("qwen3", None)
    report = export_gguf(case.folder, tmp_path / "x.gguf")
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert report["rounding"] is None
    assert fields["general.architecture"].contents() == "qwen3"
    assert fields["qwen3.attention.key_length"].contents() == 32


def test_what_is_refused(made, tmp_path):
    case = made()
    (tmp_path / "there.gguf").touch()
    with pytest.raises(UserError, match="exists already"):
        export_gguf(case.folder, tmp_path / "there.gguf")
    with pytest.raises(
        UserError, match=r"unknown kind of GGUF 'q4' .allowed: blocks, f16, f32, q3_k_m, q4_k_m, q4_k_s, "
    ):
        export_gguf(case.folder, tmp_path / "x.gguf", kind="q4")
    config = json.loads((case.folder / "config.json").read_text())
    for change, message in (
        ({"model_type": "gpt2"}, "unknown architecture for GGUF 'gpt2' .allowed: llama, mistral, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "unknown rope_type for GGUF 'longrope'"),
        ({"vocab_size": 100}, "has token 263, config.json a vocabulary of 100"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized by fp8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "desc_act": True}}, "activation order"),
        ({"num_hidden_layers": 1}, "has no place for the tensor model.layers.1"),
    ):
        (case.folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message):
            export_gguf(case.folder, tmp_path / "x.gguf")
    (case.folder / "config.json").unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        export_gguf(case.folder, tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "there.gguf"]


def test_a_weight_beyond_float16_is_refused_and_leaves_no_file(made, tmp_path):
    from safetensors.torch import save_file

    case = made("llama", None)
    shards = Shards(case.folder)
    tensors = {name: shards.tensor(name).clone() for name in shards.entries}
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, case.folder / "model.safetensors")
    with pytest.raises(UserError, match=r"up_proj.weight has values beyond float16"):
        export_gguf(case.folder, tmp_path / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_rope_scaling(kind, made, tmp_path):
    case = made("llama3", None)
    config = json.loads((case.folder / "config.json").read_text())
    config["rope_parameters"] |= {"rope_type": kind}
    (case.folder / "config.json").write_text(json.dumps(config))
    export_gguf(case.folder, tmp_path / "x.gguf")
    reader, weights = read(tmp_path / "x.gguf")
    if kind == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        plain = 1.0 / 1e4 ** (torch.arange(0, 16, 2) / 16)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](case.model.config, torch.device("cpu"))
        np.testing.assert_allclose(plain.numpy() / weights["rope_freqs.weight"], scaled.numpy(), rtol=1e-5)
    else:
        assert reader.get_field("llama.rope.scaling.type").contents() == kind
        assert reader.get_field("llama.rope.scaling.factor").contents() == 8.0


def test_rotary_parameters_where_transformers_4_put_them():
    sizes = {
        "model_type": "llama", "num_attention_heads": 2, "hidden_size": 64, "num_hidden_layers": 1,
        "intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 9, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0},
    }  # fmt: skip
    found = Architecture.of(sizes)
    assert (found.rope["rope_type"], found.rope["rope_theta"], found.kv_heads, found.head_dim) == ("linear", 5e5, 2, 32)
    # As transformers wrote it for a while, the kind twice, and with what it leaves to its default.
    scaling = {
        "type": "llama3", "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "attention_factor": None,
    }  # fmt: skip
    factors = Architecture.of({**sizes, "rope_scaling": scaling}).rope_factors()
    assert (factors[0], factors[-1], len(factors)) == (1.0, 8.0, 16)
    # What the rotary embedding was trained for is, where nobody says it, what the model is said to hold.
    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert Architecture.of({**sizes, "rope_scaling": yarn}).rope["original_max_position_embeddings"] == 64
    for more, message in (
        ({"factor": None}, r"does not say factor of its rotary embedding .yarn"),
        ({"beta_fast": 16}, r"has beta_fast 16, which is not exported .allowed: 32"),
        ({"attention_factor": 1.5}, "has attention_factor 1.5"),
        ({"rope_type": "llama3"}, "does not say low_freq_factor"),
    ):
        with pytest.raises(UserError, match=message):
            Architecture.of({**sizes, "rope_scaling": yarn | more})
    with pytest.raises(UserError, match="does not say vocab_size"):
        Architecture.of({key: value for key, value in sizes.items() if key != "vocab_size"})
