from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.sketch import sketch


def _grams(seed: int, tokens: int, size: int = 12, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, tokens, size, generator=generator, dtype=torch.float64)
    return inputs.transpose(1, 2) @ inputs


def _energy(rows: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nri,nij,nrj->nr", rows, grams, rows).unsqueeze(-1)


@given(st.integers(0, 2**31), st.integers(1, 12))
def test_a_matrix_of_low_rank_is_kept_whole(seed: int, tokens: int) -> None:
    grams = _grams(seed, tokens)
    rows = torch.randn(3, 5, 12, dtype=torch.float64)
    expected = _energy(rows, grams)
    torch.testing.assert_close(sketch(grams, tokens).energy(rows), expected, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 2**31), st.integers(0, 12))
def test_the_diagonal_is_exact_at_any_rank_and_no_energy_is_negative(seed: int, rank: int) -> None:
    grams = _grams(seed, 40)
    found = sketch(grams, rank)
    each = found.energy(torch.eye(12, dtype=torch.float64).expand(3, 12, 12).clone()).squeeze(-1)
    torch.testing.assert_close(each, grams.diagonal(dim1=1, dim2=2))
    assert bool((found.energy(torch.randn(3, 9, 12, dtype=torch.float64)) >= 0).all())


def test_more_columns_come_nearer() -> None:
    grams = _grams(0, 40)
    left = [float((grams - found.factor @ found.factor.mT - torch.diag_embed(found.rest.squeeze(1))).norm())
            for found in (sketch(grams, rank) for rank in (0, 4, 8, 12))]  # fmt: skip
    assert left == sorted(left, reverse=True)
    assert left[-1] < 1e-9 * left[0]


def test_dead_channels_and_matrices_of_zeros() -> None:
    grams = _grams(1, 40)
    grams[0] = 0
    grams[1, 3], grams[1, :, 3] = 0, 0
    found = sketch(grams, 12)
    rows = torch.randn(3, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(found.energy(rows.clone()), _energy(rows, grams))


def test_a_matrix_that_is_not_finite_spoils_its_own_energies_only() -> None:
    grams = _grams(2, 40)
    grams[1] = torch.nan
    energy = sketch(grams, 4).energy(torch.randn(3, 5, 12, dtype=torch.float64))
    assert energy.isfinite().all(dim=1).squeeze(-1).tolist() == [True, False, True]
