from __future__ import annotations

import math
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.formats.scheme import Scheme
from awqbench.quantization.mixed import Mixing, bits_per_weight, choose

SCHEME = Scheme(4, 64)


def row(name: str, out: int, inputs: int, error: float | None) -> dict[str, Any]:
    return {"name": name, "shape": [out, inputs], "block_error": error}


ROWS = [row("a", 64, 64, 0.1), row("b", 64, 128, 0.15), row("c", 64, 64, 0.05), row("d", 64, 64, None)]


def test_the_worst_are_kept() -> None:
    table = choose(ROWS, [], SCHEME, Mixing(worst=2))
    assert [each["name"] for each in table["linears"]] == ["b", "a"]
    assert table["error_removed"] == pytest.approx(0.25 / 0.3)
    # 20480 weights at 4 + (16 + 4) / 64 bits, of which 12288 are raised to 16.
    assert table["bits_per_weight_before"] == pytest.approx(4.3125)
    assert table["bits_per_weight"] == pytest.approx(4.3125 + 12288 / 20480 * (16 - 4.3125))
    assert table["linears"][1]["added_bytes"] == round(64 * 64 * (16 - 4.3125) / 8)


def test_a_budget_is_spent_by_error_per_bit_and_kept() -> None:
    table = choose(ROWS, [], SCHEME, Mixing(budget=7.0, bits=16))
    # "a" buys more per bit than the larger "b"; after it the budget holds no second one.
    assert [each["name"] for each in table["linears"]] == ["a"]
    assert table["bits_per_weight"] <= 7.0
    everything = choose(ROWS, [], SCHEME, Mixing(budget=16.0, bits=8))
    assert len(everything["linears"]) == 4
    assert everything["bits_per_weight"] == pytest.approx(8 + (16 + 8) / 64)  # they have scales and zero points too
    assert everything["linears"][0]["added_bytes"] == 64 * 128 * (8.375 - 4.3125) / 8
    some = choose(ROWS, [], SCHEME, Mixing(budget=7.0, bits=8))
    assert [each["name"] for each in some["linears"]] == ["b", "a"]
    assert some["bits_per_weight"] == pytest.approx(4.3125 + 12288 / 20480 * (8.375 - 4.3125))


def test_ties_go_by_name() -> None:
    rows = [row("b", 8, 64, 1.0), row("a", 8, 64, 1.0)]
    assert choose(rows, [], SCHEME, Mixing(worst=1))["linears"][0]["name"] == "a"


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        (Mixing(worst=1, bits=12), "keep bits is 12"),
        (Mixing(worst=-1), "keep worst is -1"),
        (Mixing(worst=1, budget=5.0), "exclude each other"),
        (Mixing(budget=4.1), r"budget of 4\.1 bits.*4\.31"),
        (Mixing(budget=math.nan), "budget of nan bits"),
    ],
)
def test_contradictions_are_refused(mixing: Mixing, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixing.check(SCHEME)


def test_those_named_are_kept_with_those_that_go_with_them() -> None:
    table = choose(ROWS, [["a", "c"]], SCHEME, Mixing(keep=["c"]))
    assert [each["name"] for each in table["linears"]] == ["a", "c"]
    both = choose(ROWS, [], SCHEME, Mixing(worst=1, keep=["re:[ad]"]))
    assert [each["name"] for each in both["linears"]] == ["b", "a", "d"]


def test_names_are_checked() -> None:
    mixing = Mixing(keep=["mlp.down_proj", "re:.*\\.q_proj"])
    mixing.check(SCHEME)
    mixing.check_names(["layers.0.mlp.down_proj", "layers.0.self_attn.q_proj"])
    with pytest.raises(UserError, match=r"'re:.*q_proj' matches no quantized linear .*'layers.0.mlp.down_proj'"):
        mixing.check_names(["layers.0.mlp.down_proj"])
    with pytest.raises(UserError, match="is no regular expression"):
        Mixing(keep=["re:("]).check(SCHEME)
    with pytest.raises(UserError, match="keep and a bits budget exclude each other"):
        Mixing(keep=["a"], budget=5.0).check(SCHEME)


def test_eight_bits_are_no_more_than_eight() -> None:
    with pytest.raises(UserError, match="all linears have 8"):
        Mixing(worst=1, bits=8).check(Scheme(8, 64))


def test_bits_per_weight_counts_scales_and_zero_points() -> None:
    assert bits_per_weight(Scheme(4, 128)) == 4 + 20 / 128
    assert bits_per_weight(Scheme(4, 128, symmetric=True)) == 4 + 16 / 128
    assert bits_per_weight(Scheme(8, -1, symmetric=True), 1024) == 8 + 16 / 1024


def test_linears_that_engines_fuse_are_raised_together() -> None:
    table = choose(ROWS, [["c", "a"], ["b"]], SCHEME, Mixing(worst=2))
    assert [each["name"] for each in table["linears"]] == ["b", "a", "c"]
    table = choose(ROWS, [["a", "d"]], SCHEME, Mixing(budget=7.0))
    assert [each["name"] for each in table["linears"]] == ["c"]  # the set no longer fits, nor does the larger "b"
