from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.moments import Moments, pooled


def _inputs(seed: int, tokens: int, channels: int) -> torch.Tensor:
    return torch.randn(tokens, channels, generator=torch.Generator().manual_seed(seed))


def _of(inputs: torch.Tensor) -> Moments:
    moments = Moments(inputs.shape[1])
    moments.add(inputs)
    return moments


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 4))
def test_batches_add_up_to_the_moments_of_all_tokens(seed: int, channels: int, batches: int) -> None:
    """Any width: strips that do not divide it too."""
    inputs = _inputs(seed, 6 * batches, channels)
    moments = Moments(channels)
    for batch in inputs.view(batches, 2, 3, channels):
        moments.add(batch)
    assert moments.tokens == 6 * batches
    assert moments.gram == pytest.approx(inputs.T @ inputs, rel=1e-4, abs=1e-4)
    assert moments.magnitude == pytest.approx(inputs.abs().mean(dim=0), rel=1e-5)


def test_reading_the_matrix_between_batches_changes_nothing() -> None:
    inputs, moments = _inputs(0, 8, 5), Moments(5)
    for batch in inputs.split(2):
        moments.add(batch)
        assert torch.equal(moments.gram, moments.gram.T)
    assert moments.gram == pytest.approx(inputs.T @ inputs, rel=1e-5, abs=1e-5)


def test_energy_is_the_squared_norm_of_the_outputs() -> None:
    inputs, weight = _inputs(1, 20, 12), _inputs(2, 7, 12)
    outputs = inputs @ weight.T
    assert _of(inputs).row_energy(weight) == pytest.approx(outputs.square().sum(dim=0), rel=1e-4)
    assert _of(inputs).energy(weight) == pytest.approx(float(outputs.square().sum()), rel=1e-4)


def test_scaled_moments_are_those_of_the_divided_input() -> None:
    inputs, scale = _inputs(3, 20, 6), torch.tensor([0.5, 1.0, 2.0, 4.0, 0.25, 1.0])
    expected = _of(inputs / scale)
    scaled = _of(inputs).scaled(scale)
    assert scaled.gram == pytest.approx(expected.gram, rel=1e-5, abs=1e-5)
    assert scaled.magnitude == pytest.approx(expected.magnitude, rel=1e-5)
    assert scaled.tokens == 20


def test_blocks_are_the_groups_own_parts_of_the_matrix() -> None:
    moments = _of(_inputs(4, 20, 6))
    blocks = moments.blocks(2)
    assert blocks.shape == (3, 2, 2)
    assert all(torch.equal(blocks[i], moments.gram[2 * i : 2 * i + 2, 2 * i : 2 * i + 2]) for i in range(3))
    assert torch.equal(moments.blocks(6)[0], moments.gram)


def test_pooled_moments_are_those_of_all_tokens() -> None:
    inputs = _inputs(5, 20, 4)
    whole = pooled([_of(inputs[:5]), Moments(4), _of(inputs[5:])])
    assert whole.tokens == 20
    assert whole.gram == pytest.approx(inputs.T @ inputs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e30])
def test_what_is_not_finite_or_has_no_finite_square_shows(value: float) -> None:
    inputs = _inputs(6, 4, 4)
    assert _of(inputs).finite
    inputs[1, 2] = value
    assert not _of(inputs).finite
