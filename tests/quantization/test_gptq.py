from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import InvalidMeasurement
from awqbench.quantization.gptq import compensated_codes, damped, feedback
from awqbench.quantization.rounding import grid


def _problem(seed: int, inputs: int = 24, out: int = 5, tokens: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """A transposed weight [in, out] and the Gram matrix of a correlated input."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator) / inputs**0.5 + 0.5 * torch.eye(inputs)
    tokens_in = torch.randn(tokens, inputs, generator=generator) @ mix
    return torch.randn(inputs, out, generator=generator), tokens_in.T @ tokens_in


def _grid(weight: torch.Tensor, groups: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    step, zero = grid(weight.T.reshape(weight.shape[1], groups, -1), bits)
    return step.squeeze(-1).T.contiguous(), zero.squeeze(-1).T.contiguous()


def _value(codes: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    size = codes.shape[0] // step.shape[0]
    return (codes - zero.repeat_interleave(size, 0)) * step.repeat_interleave(size, 0)


def _plain_gptq(
    weight: torch.Tensor, gram: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, bits: int
) -> torch.Tensor:
    """The paper's algorithm in float64: round a column, spread its error by the inverse, drop it from the inverse."""
    rest, inverse = weight.double().clone(), gram.double().inverse()
    codes = torch.empty_like(rest)
    size = weight.shape[0] // step.shape[0]
    for column in range(weight.shape[0]):
        scale, offset = step[column // size].double(), zero[column // size].double()
        codes[column] = ((rest[column] / scale).round() + offset).clamp(0, 2**bits - 1)
        error = (rest[column] - (codes[column] - offset) * scale) / inverse[column, column]
        rest[column + 1 :] -= torch.outer(inverse[column + 1 :, column], error)
        inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes.float()


def test_two_columns_by_hand() -> None:
    # G = [[2, 1], [1, 2]] = R R^T with R = [[sqrt 1.5, sqrt 0.5], [0, sqrt 2]]: half of the first error is made up for.
    upper, used = feedback(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 1e-9)
    assert upper.tolist() == [[1.0, pytest.approx(0.5)], [0.0, 1.0]]
    assert used == 1e-9
    # On whole numbers: 1.4 -> 1 leaves 0.4, so 2.4 becomes 2.6 -> 3 and not 2.
    step, zero = torch.ones(1, 1), torch.zeros(1, 1)
    codes = compensated_codes(torch.tensor([[1.4], [2.4]]), upper, torch.arange(2), step, zero, bits=4)
    assert codes.tolist() == [[1.0], [3.0]]


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.sampled_from([1, 3]))
def test_it_is_the_papers_algorithm(seed: int, bits: int, groups: int) -> None:
    weight, gram = _problem(seed)
    gram = damped(gram, 0.01)
    step, zero = _grid(weight, groups, bits)
    upper, _ = feedback(gram, 1e-9)
    codes = compensated_codes(weight, upper, torch.arange(24), step, zero, bits)
    expected = _plain_gptq(weight, gram, step, zero, bits)
    # A value within float32's error of the middle between two codes may fall on either side, and takes others along.
    same_rows = (codes == expected).all(dim=0)
    assert same_rows.sum() >= 4
    losses = [
        torch.einsum("io,ij,jo->o", (_value(each, step, zero) - weight), gram, _value(each, step, zero) - weight)
        for each in (codes, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.5)


def test_more_columns_than_one_block_of_the_loop() -> None:
    weight, gram = _problem(7, inputs=150, out=4, tokens=400)
    step, zero = _grid(weight, 3, 4)
    upper, _ = feedback(gram, 0.01)
    expected = _plain_gptq(weight, damped(gram, 0.01), step, zero, 4)
    assert torch.equal(compensated_codes(weight, upper, torch.arange(150), step, zero, 4), expected)


def test_any_order_gives_the_codes_of_the_permuted_problem() -> None:
    weight, gram = _problem(3)
    step, zero = _grid(weight, 24, 4)  # a group a column, so that the permuted problem has groups of its own
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    upper, _ = feedback(gram[order][:, order], 0.01)
    codes = compensated_codes(weight, upper, order, step, zero, 4)
    permuted = compensated_codes(weight[order], upper, torch.arange(24), step[order], zero[order], 4)
    assert torch.equal(codes[order], permuted)


def test_a_singular_matrix_raises_the_damping_and_says_so() -> None:
    # No Gram matrix at all, as an eigenvalue is -2: of the dampings 0.01, 0.1, 1 and 10 the last is the first to help.
    upper, used = feedback(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), 0.01)
    assert used == 10
    assert bool(upper.isfinite().all())


def test_dead_channels_give_and_take_no_feedback() -> None:
    _, gram = _problem(5)
    gram[7], gram[:, 7] = 0.0, 0.0
    upper, _ = feedback(gram, 0.03)
    assert not upper[7, 8:].any()
    assert not upper[:7, 7].any()
    upper, _ = feedback(torch.zeros(3, 3), 0.03)
    assert torch.equal(upper, torch.eye(3))


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidMeasurement, match="not finite"):
        feedback(torch.full((3, 3), torch.nan), 0.03)
