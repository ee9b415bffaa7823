from __future__ import annotations

import pytest
from torch import nn

from awqbench.errors import UserError
from awqbench.formats.layouts import Scheme, layout
from awqbench.quantization.policy import cannot_hold, refuse_indivisible

AWQ, COMPRESSED = layout("autoawq"), layout("compressed-tensors")


def test_the_refusal_counts_names_and_offers_what_fits() -> None:
    linears = {f"layers.{i}.up": nn.Linear(96, 64) for i in range(5)} | {"layers.0.down": nn.Linear(128, 96)}
    with pytest.raises(UserError) as error:
        refuse_indivisible(linears, AWQ, Scheme(4, 64))
    message = str(error.value)
    assert "group size 64 does not fit 5 of 6 linears" in message
    assert "layers.0.up (96 to 64), layers.1.up (96 to 64), layers.2.up (96 to 64), ...;" in message
    assert '(allowed: group size 16, 32 or indivisible = "keep")' in message
    assert "\n" not in message


def test_nothing_fits() -> None:
    with pytest.raises(UserError, match="no common group size fits all"):
        refuse_indivisible({"a": nn.Linear(172, 64)}, AWQ, Scheme(4, 64))


def test_outputs_must_divide_by_eight_too() -> None:
    linears = {"a": nn.Linear(64, 12), "b": nn.Linear(64, 16)}
    assert cannot_hold(linears, AWQ, Scheme(4, 64)) == ["a"]
    assert cannot_hold(linears, COMPRESSED, Scheme(4, 64, symmetric=True)) == []


def test_all_fit() -> None:
    refuse_indivisible({"a": nn.Linear(64, 8)}, AWQ, Scheme(4, 32))


def test_any_input_size_fits_one_group_per_channel() -> None:
    refuse_indivisible({"a": nn.Linear(172, 64)}, COMPRESSED, Scheme(4, -1))
