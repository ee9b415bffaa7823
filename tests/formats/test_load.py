import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from awqbench.errors import UserError
from awqbench.formats.layouts import Scheme
from awqbench.formats.load import load_quantized, read_quantized
from awqbench.ops import QuantizedLinear


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(model, length=9):
    ids = torch.arange(2, 2 + length)[None]
    with torch.no_grad():
        return model(ids).logits


SCHEMES = [
    ("autoawq", 4, 32, False), ("autoawq", 4, -1, True), ("autoawq", 3, 32, False), ("autoawq", 2, 32, True),
    ("compressed-tensors", 4, 32, False), ("compressed-tensors", 4, 32, True), ("compressed-tensors", 3, 32, False),
    ("compressed-tensors", 2, -1, True), ("compressed-tensors", 8, -1, False), ("compressed-tensors", 8, 32, True),
]  # fmt: skip


def assert_reads_back(case):
    back = read_quantized(case.out)
    assert back.keys() == case.quantized.keys()
    loaded = load_quantized(case.out)
    for name, tensor in case.quantized.items():
        held = loaded.get_submodule(name).to_quantized()
        for found in (back[name], held):
            assert all(torch.equal(getattr(tensor, f), getattr(found, f)) for f in ("codes", "scales", "zeros")), name
            assert (found.bits, found.group_size) == (tensor.bits, tensor.group_size)
    torch.testing.assert_close(logits(loaded), logits(case.model), rtol=1e-4, atol=1e-5)
    return loaded


@pytest.mark.parametrize(("format_name", "bits", "group_size", "symmetric"), SCHEMES)
def test_round_trip_of_every_scheme(format_name, bits, group_size, symmetric, written):
    assert_reads_back(written(format_name=format_name, bits=bits, group_size=group_size, symmetric=symmetric))


@pytest.mark.parametrize("format_name", ["autoawq", "compressed-tensors"])
def test_round_trip_of_every_kind_of_model(any_kind, format_name, written):
    assert_reads_back(written(any_kind, format_name=format_name))


def test_mixed_precision(written):
    kept = ("lm_head", "model.layers.0.self_attn.v_proj")
    mixed = {"model.layers.1.mlp.down_proj": Scheme(8, 32), "model.layers.0.mlp.up_proj": Scheme(3, -1, True)}
    loaded = assert_reads_back(written(format_name="compressed-tensors", mixed=mixed, kept=kept))
    assert loaded.model.layers[1].mlp.down_proj.bits == 8
    assert isinstance(loaded.model.layers[0].self_attn.v_proj, torch.nn.Linear)


@pytest.mark.parametrize("format_name", ["autoawq", "compressed-tensors"])
def test_an_output_head_that_is_quantized_is_tied_to_nothing(format_name, written):
    loaded = assert_reads_back(written("llama-tied", format_name=format_name, kept=()))
    assert isinstance(loaded.lm_head, QuantizedLinear)
    assert not hasattr(loaded.lm_head, "weight")


def test_tied_embeddings_are_stored_once_and_stay_tied(written):
    case = written("llama-tied")
    loaded = load_quantized(case.out)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert "lm_head.weight" not in load_file(case.out / "model.safetensors")


def test_tied_embeddings_stored_under_the_other_name(written):
    case = written("llama-tied")
    change_tensors(case.out, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    loaded = load_quantized(case.out)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    torch.testing.assert_close(logits(loaded), logits(case.model), rtol=1e-4, atol=1e-5)


def test_embeddings_that_differ_are_not_tied_whatever_the_config_says(written):
    case = written("llama-tied")
    change_tensors(case.out, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}))
    torch.testing.assert_close(logits(load_quantized(case.out)), 2 * logits(case.model), rtol=1e-4, atol=1e-5)


def test_a_bias_whose_name_looks_like_a_buffer_to_ignore_is_loaded(written):
    """transformers ignores GPT-2's "attn.bias", a mask, where the model has none; "c_attn.bias" it has."""
    case = written("gpt2")
    change_tensors(case.out, lambda tensors: tensors["transformer.h.0.attn.c_attn.bias"].fill_(0.25))
    bias = load_quantized(case.out).get_submodule("transformer.h.0.attn.c_attn").bias
    assert bias is not None
    assert bias.unique().tolist() == [0.25]


def test_untied_embeddings_stay_apart(written):
    loaded = load_quantized(written("llama-untied").out)
    assert loaded.lm_head.weight is not loaded.model.embed_tokens.weight


def test_loaded_model_is_ready_for_inference(written):
    loaded = load_quantized(written().out, dtype=torch.bfloat16)
    assert not loaded.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())
    assert not any(b.is_meta for b in loaded.buffers())
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert logits(loaded).isfinite().all()
    assert loaded.generate(torch.tensor([[2, 3]]), max_new_tokens=3, do_sample=False).shape == (1, 5)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_packed_and_fake_quantized_agree_at_every_length(length, written):
    case = written()
    expected, got = logits(case.model, length), logits(load_quantized(case.out), length)
    assert (got - expected).norm() < 1e-5 * expected.norm()


def test_several_shards_hold_the_same(written):
    case = written(max_shard_bytes=20_000)
    assert len(list(case.out.glob("*.safetensors"))) > 2
    torch.testing.assert_close(logits(load_quantized(case.out)), logits(case.model), rtol=1e-4, atol=1e-5)


def test_no_dense_weight_is_held(written):
    loaded = load_quantized(written().out)
    linears = [m for m in loaded.modules() if isinstance(m, QuantizedLinear)]
    assert len(linears) == 14
    assert {name.rpartition(".")[2] for m in linears for name in m.state_dict()} == {"codes", "zeros", "scale_bits"}


def test_the_kernel_can_be_chosen(written):
    case = written()
    loaded = load_quantized(case.out, kernel="dequantize")
    assert {m.kernel for m in loaded.modules() if isinstance(m, QuantizedLinear)} == {"dequantize"}
    with pytest.raises(UserError, match="unknown kernel 'marlin'"):
        load_quantized(case.out, kernel="marlin")


def test_building_leaves_torch_as_it_was(written):
    register = torch.nn.Module.register_parameter
    load_quantized(written().out)
    assert torch.nn.Module.register_parameter is register
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_a_checkpoint_without_our_recipe_loads(written):
    case = written()
    (case.out / "quantize.json").unlink()
    assert {tensor.bits for tensor in read_quantized(case.out).values()} == {4}
    load_quantized(case.out)


def test_a_truncated_shard_is_named(written):
    case = written(max_shard_bytes=20_000)
    shard = sorted(case.out.glob("*.safetensors"))[1]
    with shard.open("r+b") as stream:
        stream.truncate(shard.stat().st_size - 100)
    for function in (load_quantized, read_quantized):
        with pytest.raises(UserError, match=f"{shard.name} is truncated"):
            function(case.out)


def test_a_missing_shard_is_named(written):
    case = written(max_shard_bytes=20_000)
    shard = sorted(case.out.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"no weights at .*{shard.name}"):
        load_quantized(case.out)


def test_a_broken_config(written):
    case = written()
    path = case.out / "config.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        load_quantized(case.out)
    path.unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_quantized(case.out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 8}}, "8 bits"),
        ({"quantization_config": {"quant_method": "awq", "group_size": 64}}, "in groups of 64"),
        ({"model_type": "no-such-model"}, "config.json"),
        ({"model_type": "t5"}, "no causal language model"),
    ],
)
def test_a_config_that_is_not_ours(changes, message, written):
    case = written()
    change_config(case.out, **changes)
    with pytest.raises(UserError, match=message):
        load_quantized(case.out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"1 tensors are missing, first model\.norm\.weight"),
        (lambda t: t.pop("model.layers.0.mlp.up_proj.scales"), r"up_proj\.scales is missing"),
        (lambda t: t.update({"model.extra.weight": torch.ones(2)}), r"model\.extra\.weight has no place"),
        (lambda t: t.update({"model.norm.weight": torch.ones(2)}), r"model\.norm\.weight is \[2\]"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(64), "model.norm.qweight": torch.ones(1, 1).int()}),
            r"model\.norm\.qzeros is missing",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_config(change, message, written):
    case = written()
    change_tensors(case.out, change)
    with pytest.raises(UserError, match=message):
        load_quantized(case.out)


def test_a_linear_of_another_size(written):
    case = written()
    change_config(case.out, intermediate_size=128)
    with pytest.raises(UserError, match=r"config\.json wants"):
        load_quantized(case.out)


@pytest.mark.parametrize(("format_name", "suffix"), [("autoawq", "g_idx"), ("compressed-tensors", "weight_g_idx")])
def test_activation_order_is_refused(format_name, suffix, written):
    case = written(format_name=format_name)
    name = "model.layers.0.mlp.up_proj"
    change_tensors(case.out, lambda t: t.update({f"{name}.{suffix}": torch.zeros(64, dtype=torch.int32)}))
    for function in (load_quantized, read_quantized):
        with pytest.raises(UserError, match=rf"{name}.*activation order"):
            function(case.out)


@pytest.mark.parametrize(
    ("format_name", "suffix", "change"),
    [
        ("autoawq", "qweight", lambda tensor: tensor[None]),
        ("autoawq", "scales", lambda tensor: tensor.flatten()),
        ("compressed-tensors", "weight_packed", lambda tensor: tensor[None]),
        ("compressed-tensors", "weight_shape", lambda tensor: tensor[:1]),
    ],
)
def test_tensors_of_more_or_less_than_one_linear(format_name, suffix, change, written):
    """Experts that a tool stacked, say: a traceback without the tensor's name."""
    case = written(format_name=format_name)
    name = f"model.layers.0.mlp.up_proj.{suffix}"
    change_tensors(case.out, lambda t: t.update({name: change(t[name]).contiguous()}))
    for function in (load_quantized, read_quantized):
        with pytest.raises(UserError, match=rf"{name} has shape \[.*\], which is not one linear's"):
            function(case.out)


def test_tensors_of_another_compressed_tensors_format_have_no_place(written):
    case = written(format_name="compressed-tensors")
    change_tensors(case.out, lambda t: t.update({"model.layers.0.mlp.up_proj.weight_global_scale": torch.ones(1)}))
    with pytest.raises(UserError, match="weight_global_scale has no place"):
        load_quantized(case.out)


def test_packed_tensors_where_no_linear_stands(written):
    case = written()
    source = "model.layers.0.mlp.up_proj"
    change_tensors(
        case.out,
        lambda t: t.update({f"model.norm.{s}": t[f"{source}.{s}"].clone() for s in ("qweight", "qzeros", "scales")}),
    )
    with pytest.raises(UserError, match="RMSNorm, not a linear"):
        load_quantized(case.out)
