import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from awqbench.errors import UserError
from awqbench.formats.checkpoint import load_quantized, read_quantized
from awqbench.ops import QuantizedLinear


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


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
    case = written(max_shard_size=20_000)
    shard = sorted(case.out.glob("*.safetensors"))[1]
    with shard.open("r+b") as stream:
        stream.truncate(shard.stat().st_size - 100)
    for function in (load_quantized, read_quantized):
        with pytest.raises(UserError, match=f"{shard.name} is truncated"):
            function(case.out)


def test_a_missing_shard_is_named(written):
    case = written(max_shard_size=20_000)
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
        ({"quantization_config": None}, "no quantization_config"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemv"}}, "gemv"),
        ({"quantization_config": {"quant_method": "awq", "bits": 8}}, "8 bits"),
        ({"quantization_config": {"quant_method": "awq", "zero_point": False}}, "zero_point False"),
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


def test_packed_tensors_where_no_linear_stands(written):
    case = written()
    source = "model.layers.0.mlp.up_proj"
    change_tensors(
        case.out,
        lambda t: t.update({f"model.norm.{s}": t[f"{source}.{s}"].clone() for s in ("qweight", "qzeros", "scales")}),
    )
    with pytest.raises(UserError, match="RMSNorm, not a linear"):
        load_quantized(case.out)
