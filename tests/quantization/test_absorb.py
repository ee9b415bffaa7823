from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from awqbench.quantization.absorb import Absorber, Form, scale_inputs


def test_sharing_averages_over_the_channels_of_a_row() -> None:
    absorber = Absorber("v", "rows", torch.tensor([1, 1, 0, 1]))
    assert absorber.repeats
    assert absorber.share(torch.tensor([1.0, 2.0, 8.0, 6.0])).tolist() == [3.0, 3.0, 8.0, 3.0]
    plain = Absorber("v", "rows")
    assert not plain.repeats
    assert plain.share(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.floats(0, 2))
def test_any_power_of_shared_values_stays_shared(rows: list[int], power: float) -> None:
    absorber = Absorber("v", "rows", torch.tensor(rows))
    values = torch.rand(len(rows), generator=torch.Generator().manual_seed(0)) + 0.1
    scale = absorber.share(values) ** power
    assert torch.equal(absorber.row_scale(scale, 6)[rows], scale)
    assert torch.allclose(absorber.share(values).sum(), values.sum())


def test_rows_that_feed_nothing_are_not_divided() -> None:
    scale = torch.tensor([2.0, 4.0])
    assert Absorber("v", "rows").row_scale(scale, 5).tolist() == [1, 1, 1, 2, 4]
    assert Absorber("v", "rows", torch.tensor([3, 0])).row_scale(scale, 5).tolist() == [4, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("form", "weight", "bias"), [("weight", [1.5, 0.5], [0.5, 0.25]), ("1 + weight", [1.0, -0.25], [0.5, 0.25])]
)
def test_gain_and_bias_of_a_norm_are_divided(form: Form, weight: list[float], bias: list[float]) -> None:
    block = nn.ModuleDict({"norm": nn.LayerNorm(2)}).requires_grad_(False)
    block["norm"].weight.data = torch.tensor([3.0, 2.0])
    block["norm"].bias.data = torch.tensor([1.0, 1.0])
    Absorber("norm", form).divide(block, torch.tensor([2.0, 4.0]))
    assert block["norm"].weight.tolist() == weight
    assert block["norm"].bias.tolist() == bias


def test_rows_and_bias_of_a_linear_are_divided_and_inputs_multiplied() -> None:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2, dtype=torch.bfloat16), requires_grad=False)

    block = nn.ModuleDict({"v": nn.Linear(1, 3), "router": Router()}).requires_grad_(False)
    block["v"].weight.data, block["v"].bias.data = torch.ones(3, 1), torch.ones(3)
    scale = torch.tensor([2.0, 4.0])
    Absorber("v", "rows").divide(block, scale)
    scale_inputs(block, ["router"], scale)
    assert block["v"].weight.flatten().tolist() == block["v"].bias.tolist() == [1, 0.5, 0.25]
    assert block["router"].weight.tolist() == [[2, 4]] * 3
