from __future__ import annotations

from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.quantization.overrides import GroupOverride, Overrides, read_overrides
from awqbench.quantization.trace import Reading

GOOD = """
[[group]]
readers = ["mlp.fc_in", "re:mlp\\\\.gate.*"]
absorber = "ln_2"
form = "1 + weight"

[[group]]
readers = ["attn.out"]
absorber = "attn.v"
form = "rows"
proved = false

[skip]
linears = ["re:.*router.*", "lm_head"]
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "overrides.toml"
    file.write_text(GOOD)
    assert read_overrides(file) == Overrides(
        (
            GroupOverride(("mlp.fc_in", r"re:mlp\.gate.*"), "ln_2", "1 + weight"),
            GroupOverride(("attn.out",), "attn.v", "rows", proved=False),
        ),
        ("re:.*router.*", "lm_head"),
    )
    assert read_overrides(None) == Overrides()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[group", "is no valid TOML"),
        ("[groups]", r"unknown key 'groups'; did you mean 'group'\? \(allowed: group, skip\)"),
        ("[skip]\nlinear = []", r"unknown key 'skip.linear'; did you mean 'skip.linears'"),
        ("[skip]\nlinears = 'x'", r"skip.linears is 'x' \(allowed: a list of names"),
        ("[skip]\nlinears = ['re:(']", r"'re:\(' is no regular expression"),
        ("group = 3", "group and skip are tables"),
        ("group = ['a']", "group and skip are tables"),
        ("[[group]]\nabsorber = 'n'\nform = 'rows'", r"a \[\[group\]\] lacks readers"),
        ("[[group]]\nreaders = ['a']\nabsorber = 'n'\nform = 'row'", "unknown form 'row'; did you mean 'rows'"),
        ("[[group]]\nreaders = ['a']\nabsorber = 1\nform = 'rows'", r"group.absorber is 1 \(allowed: a name\)"),
        (
            "[[group]]\nreaders = ['a']\nabsorber = 'n'\nform = 'rows'\nproved = 1",
            r"group.proved is 1 \(allowed: a boo",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "overrides.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_overrides(file)
    assert "\n" not in str(error.value)
    assert "overrides.toml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.toml: No such file"):
        read_overrides(tmp_path / "none.toml")


def test_names_and_expressions_skip_linears() -> None:
    overrides = Overrides(skip=("mlp.gate", r"re:.*\.3\..*"))
    assert overrides.skips("model.layers.0.mlp.gate")
    assert overrides.skips("model.layers.3.mlp.up")
    assert not overrides.skips("model.layers.0.mlp.gate_proj")
    assert not overrides.skips("model.layers.0.shared_mlp.gate")


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    linears = ["model.layers.0.mlp.up", "model.layers.1.mlp.up"]
    Overrides((GroupOverride(("mlp.up",), "norm", "weight"),), ("mlp.up",)).check(linears, "model.layers")
    with pytest.raises(UserError, match=r"overrides: 'mlp.down' matches no linear"):
        Overrides(skip=("mlp.down",)).check(linears, "model.layers")
    with pytest.raises(UserError, match=r"overrides: 'mlp.gate' matches no linear"):
        Overrides((GroupOverride(("mlp.gate",), "norm", "weight"),)).check(linears, "model.layers")


def test_declared_readers_are_put_together() -> None:
    readings = [Reading(["a", "b"], [["e.0.up"], ["e.1.up"]], ["norm"]), Reading(["c"])]
    asked = GroupOverride(("b", "c", r"re:e\..*"), "norm", "weight")
    assert Overrides((asked,)).regroup(readings) == [
        (Reading(["b", "c"], [["e.0.up"], ["e.1.up"]]), asked),
        (Reading(["a"], [], ["norm"]), None),
    ]
    assert readings[0].whole == ["a", "b"]
    assert Overrides().regroup(readings) == [(readings[0], None), (readings[1], None)]
