import json

import pytest
from safetensors.torch import load_file, save_file

from awqbench.formats.summary import inspect_checkpoint

UP = "model.layers.0.mlp.up_proj"


def findings(folder):
    return [(row["linear"], row["what"]) for row in inspect_checkpoint(folder)["findings"]]


def configured(case, change):
    """The findings after config.json was changed."""
    path = case.out / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return findings(case.out)


def without(case, *names):
    file = case.out / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if name not in names}, file)
    return findings(case.out)


@pytest.mark.parametrize(
    ("format_name", "suffix"),
    [("autoawq", "qzeros"), ("autoawq", "scales"), ("compressed-tensors", "weight_zero_point"),
     ("compressed-tensors", "weight_shape"), ("compressed-tensors", "weight_scale")],
)  # fmt: skip
def test_a_missing_tensor(written, format_name, suffix):
    assert (UP, f"{suffix} is missing") in without(written(format_name=format_name), f"{UP}.{suffix}")


def test_zero_points_are_not_missed_where_all_is_symmetric(written):
    assert findings(written(format_name="compressed-tensors", symmetric=True).out) == []


def test_tensors_of_a_linear_that_contradict_each_other(written):
    case = written()
    file = case.out / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {f"{UP}.qzeros": tensors[f"{UP}.qzeros"][:1].contiguous()}, file)
    assert findings(case.out) == [(UP, "qzeros is [1, 12], the others want [2, 12]")]


@pytest.mark.parametrize(
    "sizes",
    [
        {"intermediate_size": 7, "intermediate_size_mlp": 96},
        {"intermediate_size": 7, "moe_intermediate_size": 48, "num_shared_experts": 2},
        {"intermediate_size": [7, 96]},
    ],
)
def test_inner_sizes_by_the_names_that_families_have_for_them(written, sizes):
    assert configured(written(), lambda config: config.update(sizes)) == []


def test_bits_and_groups_that_config_json_tells_wrongly(written):
    case = written(format_name="compressed-tensors", bits=8)

    def change(config):
        weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
        weights["num_bits"], weights["group_size"] = 4, 16

    found = configured(case, change)
    assert (UP, "config.json says 4 bits, tensors hold 8") in found
    assert (UP, "config.json says groups of 16, tensors have groups of 32") in found
    assert len(found) == 28


def test_a_config_that_cannot_be_understood(written):
    found = configured(written(), lambda config: config["quantization_config"].update(zero_point=False))
    assert len(found) == 1
    assert found[0][0] == ""
    assert "zero_point False" in found[0][1]


@pytest.mark.parametrize(("key", "value", "linear", "what"), [
    ("intermediate_size", 128, UP, "it has 96 outputs, config.json wants 128"),
    ("num_key_value_heads", 4, "model.layers.0.self_attn.k_proj", "it has 32 outputs, config.json wants 64"),
    ("num_hidden_layers", 4, "", "layers without tensors, first 2"),
])  # fmt: skip
def test_sizes_that_config_json_tells_wrongly(written, key, value, linear, what):
    assert (linear, what) in configured(written(), lambda config: config.update({key: value}))


def test_a_broken_expression_among_those_that_are_not_quantized(written):
    case = written(format_name="compressed-tensors")

    def change(config):
        config["quantization_config"]["ignore"] += ["re:*lm_head"]

    what = (
        "config.json: '*lm_head' in its quantization_config is no regular expression: nothing to repeat at position 0"
    )
    assert configured(case, change) == [("", what)]


def test_linears_that_config_json_does_not_list(written):
    kept = "model.layers.1.mlp.up_proj"
    case = written(kept=("lm_head", kept))
    assert findings(case.out) == []
    said = "not quantized, and config.json does not say so"
    cut = configured(case, lambda config: config["quantization_config"].update(modules_to_not_convert=None))
    assert cut == [(kept, said)]


@pytest.mark.parametrize("ignored", [UP, r"re:.*layers\.0\.mlp\.up_proj$"])
def test_a_quantized_linear_that_config_json_ignores(written, ignored):
    case = written(format_name="compressed-tensors")
    found = configured(case, lambda config: config["quantization_config"].update(ignore=[ignored]))
    assert found == [(UP, "quantized, and config.json says it is not")]


def test_a_missing_activation_order(written):
    case = written(format_name="compressed-tensors")

    def change(config):
        config["quantization_config"]["config_groups"]["group_0"]["weights"]["actorder"] = "group"

    found = configured(case, change)
    assert (UP, "weight_g_idx is missing") in found
    assert any("actor" in what for linear, what in found if not linear)
