from __future__ import annotations

import math

import pytest
import torch

from awqbench.quantization.accounting import linear_row, ratio
from awqbench.quantization.moments import Moments


def test_a_row_by_hand() -> None:
    moments = Moments(2)
    moments.add(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    original, error, nearest = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]])
    row = linear_row("a.b", original, error, nearest, 4, 2, moments)
    # Outputs 3 and 8, off by 0 and 1 (stored) or by 1 and 0 (nearest).
    assert row == {
        "name": "a.b",
        "shape": [1, 2],
        "bits": 4,
        "tokens": 2,
        "weight_error_rtn": pytest.approx(0.2),
        "weight_error": pytest.approx(0.1),
        "errors_on": "its tokens",
        "output_error_rtn": pytest.approx(math.sqrt(1 / 73)),
        "output_error": pytest.approx(math.sqrt(1 / 73)),
        "output_mse": pytest.approx(0.5),
    }


def test_whose_tokens_the_errors_are_measured_on_is_said() -> None:
    moments, weight = Moments(2), torch.ones(1, 2)
    moments.add(torch.ones(3, 2))
    assert linear_row("a", weight, weight, weight, 4, 0, moments)["errors_on"] == "its group's tokens"
    nothing = linear_row("a", weight, weight, weight, 4, 0, None)
    assert (nothing["errors_on"], nothing["output_error"], nothing["output_mse"]) == (None, None, None)


@pytest.mark.parametrize(("part", "whole"), [(1.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_no_number_is_none(part: float, whole: float) -> None:
    assert ratio(part, whole) is None


def test_rounding_below_zero_has_a_root_all_the_same() -> None:
    assert ratio(-1e-9, 1.0, root=True) == 0.0
    assert ratio(torch.tensor(4.0), torch.tensor(1.0), root=True) == 2.0


def test_many_outputs_are_sampled_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    moments = Moments(8)
    moments.add(torch.randn(50, 8, generator=generator))
    original, error = torch.randn(1000, 8, generator=generator), torch.randn(1000, 8, generator=generator)
    row = linear_row("a", original, error, 2 * error, 4, 50, moments)
    assert row["output_error"] == pytest.approx(math.sqrt(moments.energy(error) / moments.energy(original)), rel=0.1)
    assert row["output_error_rtn"] == pytest.approx(2 * row["output_error"])
    assert row["output_mse"] == pytest.approx(moments.energy(error) / 50 / 1000, rel=0.2)
