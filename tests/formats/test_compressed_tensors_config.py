import pytest

from awqbench.errors import UserError
from awqbench.formats.compressed_tensors_config import config, schemes
from awqbench.formats.layouts import Scheme

LINEARS = [f"model.layers.{i}.mlp.{name}" for i in range(12) for name in ("up_proj", "down_proj")]
PLAIN, WIDE = Scheme(4, 64), Scheme(8, 32, True)


def test_one_scheme_targets_all_linears():
    found = config(dict.fromkeys(LINEARS, PLAIN), ["lm_head"])
    assert found["config_groups"] == {
        "group_0": {
            "targets": ["Linear"],
            "format": "pack-quantized",
            "weights": {
                "num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64,
                "dynamic": False,
            },
        }
    }  # fmt: skip
    assert (found["ignore"], found["quantization_status"]) == (["lm_head"], "compressed")
    assert schemes(found, LINEARS) == dict.fromkeys(LINEARS, PLAIN)


def test_per_channel():
    weights = config({"a": Scheme(8, -1, True)}, [])["config_groups"]["group_0"]["weights"]
    assert (weights["strategy"], weights["group_size"], weights["symmetric"]) == ("channel", None, True)


@pytest.mark.parametrize(
    "wide",
    [
        ["model.layers.1.mlp.down_proj"],
        [f"model.layers.{i}.mlp.down_proj" for i in range(12)],
        [f"model.layers.{i}.mlp.down_proj" for i in range(11)],
        ["model.layers.1.mlp.down_proj", "model.layers.11.mlp.up_proj"],
    ],
)
def test_several_schemes_come_back_linear_by_linear(wide):
    wanted = {name: WIDE if name in wide else PLAIN for name in LINEARS}
    found = config(wanted, [])
    assert schemes(found, LINEARS) == wanted
    assert not any("Linear" in group["targets"] for group in found["config_groups"].values())
    assert schemes(found, LINEARS[:1]) == {LINEARS[0]: wanted[LINEARS[0]]}


def test_patterns_stand_for_all_layers_and_experts():
    names = [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(3) for e in range(4)]
    found = config({**dict.fromkeys(names, WIDE), **dict.fromkeys(LINEARS, PLAIN)}, [])
    targets = sorted(target for group in found["config_groups"].values() for target in group["targets"])
    assert targets == [
        r"re:^model\.layers\.\d+\.mlp\.down_proj$",
        r"re:^model\.layers\.\d+\.mlp\.experts\.\d+\.up_proj$",
        r"re:^model\.layers\.\d+\.mlp\.up_proj$",
    ]


def test_the_package_reads_the_config_and_matches_the_same():
    pytest.importorskip("compressed_tensors")
    import torch
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_targets

    wanted = {name: WIDE if name == LINEARS[3] or "up_proj" in name else PLAIN for name in LINEARS}
    parsed = QuantizationConfig.model_validate(config(wanted, ["lm_head"]))
    assert parsed.format == "pack-quantized"
    by_target = {target: group for group in parsed.config_groups.values() for target in group.targets}
    for name, scheme in wanted.items():
        weights = by_target[match_targets(name, torch.nn.Linear(1, 1), by_target)[0]].weights
        assert (weights.num_bits, weights.group_size, weights.symmetric) == (
            scheme.bits, scheme.group_size, scheme.symmetric,
        )  # fmt: skip


def test_a_name_goes_before_a_pattern_and_a_pattern_before_the_class():
    def group(bits, *targets):
        return {"targets": list(targets), "weights": {"num_bits": bits, "group_size": 32, "strategy": "group"}}

    found = {
        "format": "pack-quantized",
        "config_groups": {"a": group(4, "Linear"), "b": group(8, "re:.*down_proj"), "c": group(2, LINEARS[1])},
    }
    assert [schemes(found, LINEARS)[name].bits for name in LINEARS[:4]] == [4, 2, 4, 8]
    broken = {**found, "config_groups": {**found["config_groups"], "b": group(8, "re:(down_proj")}}
    with pytest.raises(UserError, match=r"'\(down_proj' in its quantization_config is no regular expression: missing"):
        schemes(broken, LINEARS)
    del found["config_groups"]["a"]
    with pytest.raises(UserError, match=r"none of its config_groups targets model\.layers\.0\.mlp\.up_proj"):
        schemes(found, LINEARS)


def changed(**changes):
    found = config({"a": PLAIN}, [])
    group = found["config_groups"]["group_0"]
    for name, value in changes.items():
        place = next((d for d in (group["weights"], group, found) if name in d), group)
        (found if name.endswith(("_scheme", "_config", "_groups")) else place)[name] = value
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config_groups": {}}, "no config_groups"),
        ({"config_groups": {"g": {"targets": []}}}, "group g describes no weights"),
        ({"format": "int-quantized"}, "compressed-tensors int-quantized"),
        ({"input_activations": {"num_bits": 8}}, "activations too"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "key-value cache"),
        ({"transform_config": {"config_groups": {"u": {}}}}, "transform_config"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse"),
        ({"type": "float"}, "float of 4 bits"),
        ({"num_bits": 16}, "int of 16 bits"),
        ({"strategy": "tensor"}, "strategy tensor"),
        ({"dynamic": False, "strategy": None, "group_size": None}, "strategy tensor"),
    ],
)
def test_what_is_not_read(changes, message):
    with pytest.raises(UserError, match=message):
        schemes(changed(**changes), ["a"])


@pytest.mark.parametrize("order", ["group", "dynamic", True])
def test_activation_order_is_not_read(order):
    found = config({"a": PLAIN}, [])
    found["config_groups"]["group_0"]["weights"]["actorder"] = order
    with pytest.raises(UserError, match="activation order"):
        schemes(found, ["a"])
    found["config_groups"]["group_0"]["weights"]["actorder"] = "weight"
    assert schemes(found, ["a"]) == {"a": PLAIN}


def test_defaults_of_the_package():
    found = {"format": "pack-quantized", "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4}}}}
    found["config_groups"]["g"]["weights"]["group_size"] = -1
    assert schemes(found, ["a"]) == {"a": Scheme(4, -1, True)}
    found["config_groups"]["g"]["weights"]["group_size"] = 16
    assert schemes(found, ["a"]) == {"a": Scheme(4, 16, True)}
