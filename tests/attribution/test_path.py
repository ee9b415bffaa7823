from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from awqbench.attribution.path import measure, path_integral, put_back
from awqbench.errors import InvalidMeasurement


class Two(nn.Module):
    """Two modules with one weight each."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        for name, value in zip("ab", values, strict=True):
            linear = nn.Linear(1, 1, bias=False)
            linear.weight = nn.Parameter(torch.tensor([[value]], dtype=torch.float64), requires_grad=False)
            self.add_module(name, linear)


class Polynomial:
    """Damage of two weights: unit 0 is a^2 + 4 a b, unit 1 is b^3."""

    unit, distance = "", True

    def __init__(self) -> None:
        self.clusters, self.tokens = ["0", "1"], [1, 10]

    def record(self, reference: nn.Module, index: int) -> None: ...

    def loss(self, model: nn.Module, index: int) -> Tensor:
        a, b = (model.get_parameter(f"{name}.weight").sum() for name in "ab")
        return a**2 + 4 * a * b if index == 0 else b**3


def run(values: Sequence[float], points: int) -> tuple[dict[str, np.ndarray], Two, list[int]]:
    model, ticks = Two(values), []
    deltas = {
        f"{name}.weight": torch.tensor([[value]], dtype=torch.float64) for name, value in zip("ab", values, strict=True)
    }
    return path_integral(model, deltas, Polynomial(), [0, 1], points, ticks.append), model, ticks


def test_worked_by_hand() -> None:
    """Along (t a, t b): a's share of a^2 + 4ab is the integral of (2 t a + 4 t b) a, so a^2 + 2 a b; b's is 2 a b."""
    found, _, ticks = run((3.0, 0.5), 2)
    assert found["a.weight"] == pytest.approx([9 + 3, 0])
    assert found["b.weight"] == pytest.approx([3, 0.125])
    assert sum(ticks) == 2 * 3 * (1 + 10)


def test_gradients_are_taken_where_an_engine_of_this_process_has_switched_them_off() -> None:
    with torch.no_grad():
        found, _, _ = run((3.0, 0.5), 2)
    assert found["a.weight"] == pytest.approx([9 + 3, 0])


number = st.floats(-3, 3)


@given(a=number, b=number)
@settings(max_examples=25, deadline=None)
def test_shares_are_complete_and_the_model_is_left_as_it_was(a: float, b: float) -> None:
    found, model, _ = run((a, b), 2)
    assert found["a.weight"] + found["b.weight"] == pytest.approx([a**2 + 4 * a * b, b**3], abs=1e-9)
    assert float(model.get_parameter("a.weight")) == pytest.approx(a, abs=1e-12)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_one_node_is_enough_for_a_square_only() -> None:
    found, _, _ = run((0.0, 2.0), 1)
    assert found["b.weight"][1] == pytest.approx(3 * 1.0**2 * 2)  # 6, not 8


def test_put_back_and_undone_also_when_it_fails() -> None:
    model = Two((3.0, 0.5))
    deltas = {"a.weight": torch.tensor([[3.0]]), "b.weight": torch.tensor([[0.5]])}
    with put_back(model, deltas, ["a"]):
        assert measure(model, Polynomial(), [0, 1], lambda _: None).tolist() == [0.0, 0.125]
    with pytest.raises(IndexError), put_back(model, deltas, ["a", "b"]):
        measure(model, Polynomial(), [2], lambda _: None)
    assert (float(model.get_parameter("a.weight")), float(model.get_parameter("b.weight"))) == (3.0, 0.5)


def test_damage_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidMeasurement, match="not finite"):
        measure(Two((float("inf"), 1.0)), Polynomial(), [0], lambda _: None)
    with pytest.raises(InvalidMeasurement, match="gradient is not finite"):
        run((float("nan"), 1.0), 1)
