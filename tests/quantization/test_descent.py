from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.descent import descend
from awqbench.quantization.rounding import grid


def _loss(
    weight: torch.Tensor, gram: torch.Tensor, codes: torch.Tensor, step: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    """Each output's loss, float64 [out]."""
    size = weight.shape[0] // step.shape[0]
    value = (codes - zero.repeat_interleave(size, 0)) * step.repeat_interleave(size, 0)
    error = (value - weight).double()
    return (error * (gram.double() @ error)).sum(dim=0)


def _problem(
    seed: int, inputs: int, out: int, groups: int, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, Gram matrix, nearest codes, steps and zero points, transposed."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator)
    gram = mix @ mix.T + 0.1 * torch.eye(inputs)
    weight = torch.randn(inputs, out, generator=generator)
    step, zero = grid(weight.T.reshape(out, groups, -1), bits)
    codes = ((weight.T.reshape(out, groups, -1) / step).round() + zero).clamp(0, 2**bits - 1)
    parts = (step.squeeze(-1).T.contiguous(), zero.squeeze(-1).T.contiguous())
    return weight, gram, codes.view(out, inputs).T.contiguous(), *parts


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.sampled_from([1, 2, 6]), st.integers(1, 3))
def test_no_row_ever_gets_worse_and_all_stay_on_the_grid(seed: int, bits: int, groups: int, sweeps: int) -> None:
    weight, gram, codes, step, zero = _problem(seed, 12, 6, groups, bits)
    better, fitted = descend(weight, gram, codes, step, zero, bits, sweeps)
    before, after = _loss(weight, gram, codes, step, zero), _loss(weight, gram, better, fitted, zero)
    assert (after <= before * (1 + 1e-4) + 1e-6).all()
    assert torch.equal(better, better.round().clamp(0, 2**bits - 1))
    assert torch.equal(fitted, fitted.half().float())
    assert (fitted > 0).all()


def test_where_it_rests_no_single_code_can_be_bettered() -> None:
    weight, gram, codes, step, zero = _problem(1, 6, 4, 2, 2)
    better, fitted = descend(weight, gram, codes, step, zero, 2, sweeps=20)
    rest = _loss(weight, gram, better, fitted, zero)
    for column, code in itertools.product(range(6), range(4)):
        trial = better.clone()
        trial[column] = code
        assert (_loss(weight, gram, trial, fitted, zero) >= rest * (1 - 1e-5)).all()


def test_columns_that_do_not_correlate_keep_their_nearest_codes() -> None:
    weight, _, codes, step, zero = _problem(2, 8, 3, 2, 4)
    better, fitted = descend(weight, torch.eye(8), codes, step, zero, 4, sweeps=1)
    # With the steps refitted, each code is the nearest to its weight.
    value = weight / fitted.repeat_interleave(4, 0) + zero.repeat_interleave(4, 0)
    assert torch.equal(better, value.round().clamp(0, 15))


def test_a_step_becomes_its_least_squares_value() -> None:
    # One group, codes 1 and 2 of the weights 1.2 and 2.4: the step that fits both is 1.2, and the codes then stay.
    weight, codes = torch.tensor([[1.2], [2.4]]), torch.tensor([[1.0], [2.0]])
    better, step = descend(weight, torch.eye(2), codes, torch.ones(1, 1), torch.zeros(1, 1), 4, sweeps=1)
    assert step.item() == torch.tensor(1.2).half().item()
    assert torch.equal(better, codes)


def test_more_columns_than_one_block_of_the_loop_and_a_group_across_blocks() -> None:
    weight, gram, codes, step, zero = _problem(3, 150, 4, 1, 4)
    better, fitted = descend(weight, gram, codes, step, zero, 4, sweeps=2)
    assert _loss(weight, gram, better, fitted, zero).sum() < 0.6 * _loss(weight, gram, codes, step, zero).sum()


def test_a_group_of_zeros_stays_so() -> None:
    zeros = torch.zeros(4, 2)
    codes, step = descend(zeros, torch.eye(4), zeros, torch.full((1, 2), 0.5), torch.zeros(1, 2), 4, sweeps=2)
    assert not codes.any()
    assert step == pytest.approx(torch.full((1, 2), 0.5))
