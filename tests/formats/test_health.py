import pytest
import torch
from safetensors.torch import load_file, save_file

from awqbench.formats.health import Finding
from awqbench.formats.summary import inspect_checkpoint

NAME = "model.layers.0.mlp.up_proj"


def damaged(case, change, suffix):
    """The findings after `change` was applied to one tensor of one linear."""
    file = case.out / "model.safetensors"
    tensors = load_file(file)
    name = f"{NAME}.{suffix}" if suffix else "model.norm.weight"
    changed = change(tensors[name].clone())
    save_file(tensors | {name: changed}, file)
    return [Finding(**row) for row in inspect_checkpoint(case.out)["findings"]]


def first(count, value):
    def change(tensor):
        tensor.view(-1)[:count] = value
        return tensor

    return change


def everywhere(value):
    return lambda tensor: torch.full_like(tensor, value)


def nibbles(value):
    return everywhere(value * 0x11111111 - (1 << 32 if value > 7 else 0))


# Up-projection of the tiny model: 96 x 64 in groups of 32, so 192 groups.
@pytest.mark.parametrize(
    ("suffix", "change", "what", "count"),
    [
        ("scales", first(3, torch.nan), "scales are not finite", 3),
        ("scales", first(3, torch.inf), "scales are not finite", 3),
        ("scales", first(1, 0.0), "scales are zero", 1),
        ("scales", first(2, -0.01), "scales are negative", 2),
        ("scales", first(7, 1e-5), "scales lie at the floor of 1e-05", 7),
        ("scales", first(7, 3e-5), "scales are subnormal float16", 7),
        ("scales", first(1, 6e4), "weights can overflow float16", 1),
        ("qzeros", nibbles(0), "zero points are all 0", 192),
        ("qzeros", nibbles(15), "zero points are all 15, the largest code", 192),
        ("qzeros", nibbles(7), "zero points are all 7, one below the middle", 192),
    ],
)
def test_damage_is_found_and_counted(written, suffix, change, what, count):
    assert damaged(written(), change, suffix) == [Finding(NAME, what, count, 192)]


@pytest.mark.parametrize(("suffix", "change"), [("scales", first(1, 1e-5)), ("qzeros", first(12, 0))])
def test_what_healthy_models_have_too(written, suffix, change):
    assert damaged(written(), change, suffix) == []


@pytest.mark.parametrize(("options", "suffix", "change"), [
    ({}, "qweight", nibbles(9)),
    ({"format_name": "compressed-tensors", "bits": 3}, "weight_packed", everywhere(0)),
    ({"format_name": "compressed-tensors", "bits": 8}, "weight_packed", everywhere(0x05050505)),
])  # fmt: skip
def test_a_dead_linear(written, options, suffix, change):
    assert damaged(written(**options), change, suffix) == [Finding(NAME, "all codes are equal", 96, 96)]


def test_scales_of_bfloat16_have_other_subnormals_and_overflow_all_the_same(written):
    case = written(format_name="compressed-tensors")
    file = case.out / "model.safetensors"
    tensors = load_file(file)
    scale = tensors[f"{NAME}.weight_scale"].bfloat16()
    scale[0, 0], scale[1, 0] = 1e5, 3e-5
    save_file(tensors | {f"{NAME}.weight_scale": scale}, file)
    found = [(row["what"], row["count"]) for row in inspect_checkpoint(case.out)["findings"]]
    assert found == [("weights can overflow float16", 1)]


def test_a_norm_that_is_not_finite(written):
    assert damaged(written(), first(2, torch.nan), "") == [Finding("model.norm.weight", "values are not finite", 2, 64)]
