from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqbench.quantization.clip import clip_weight
from awqbench.quantization.moments import Moments
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.round_share import round_share
from awqbench.quantization.rounding import quantize


def _problem(seed: int) -> tuple[dict[str, torch.Tensor], Moments]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(50, 32, generator=generator) @ torch.randn(32, 32, generator=generator)
    moments = Moments(32)
    moments.add(inputs)
    weights = {name: torch.randn(out, 32, generator=generator) ** 3 for name, out in (("a.q_proj", 8), ("a.v_proj", 4))}
    return weights, moments


def _error(weights: dict[str, torch.Tensor], moments: Moments, recipe: Recipe) -> dict[str, float]:
    rounded, warnings = round_share(weights, moments, recipe)
    assert warnings == []
    return {name: moments.energy(rounded[name].dequantize() - weight) for name, weight in weights.items()}


@given(
    st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.sampled_from([16, -1]), st.booleans(),
    st.sampled_from(["gram", "module"]),
)  # fmt: skip
def test_compensation_never_makes_a_linear_worse(
    seed: int, bits: int, group_size: int, symmetric: bool, search: Any
) -> None:
    weights, moments = _problem(seed)
    options: dict[str, Any] = {"bits": bits, "group_size": group_size, "symmetric": symmetric, "search": search}
    for with_it, without in (("gptq", "rtn"), ("awq+gptq", "awq")):
        after = _error(weights, moments, Recipe(method=with_it, **options))
        before = _error(weights, moments, Recipe(method=without, **options))
        assert all(after[name] <= before[name] * (1 + 1e-4) + 1e-6 for name in weights)


def test_nearest_codes_are_those_of_each_weight_by_itself() -> None:
    weights, moments = _problem(0)
    rounded, _ = round_share(weights, moments, Recipe(method="rtn", group_size=16))
    for name, weight in weights.items():
        expected = quantize(weight, 4, 16)
        assert torch.equal(rounded[name].codes, expected.codes)
        assert torch.equal(rounded[name].scales, expected.scales)
        assert torch.equal(rounded[name].zeros, expected.zeros)


def test_the_faithful_search_clips_as_the_paper_does_but_never_queries() -> None:
    weights, moments = _problem(1)
    rounded, _ = round_share(weights, moments, Recipe(method="awq", group_size=16, search="module"))
    clipped = clip_weight(weights["a.v_proj"], moments.blocks(16), 4, 16)
    assert torch.equal(rounded["a.v_proj"].codes, quantize(clipped, 4, 16).codes)
    assert torch.equal(rounded["a.q_proj"].codes, quantize(weights["a.q_proj"], 4, 16).codes)


def test_without_clip_the_whole_range_is_kept() -> None:
    weights, moments = _problem(2)
    rounded, _ = round_share(weights, moments, Recipe(method="awq", group_size=16, clip=False))
    assert torch.equal(rounded["a.v_proj"].scales, quantize(weights["a.v_proj"], 4, 16).scales)


@pytest.mark.parametrize("method", ["awq", "awq+gptq"])
def test_a_near_singular_matrix_is_named(method: Any) -> None:
    weights, moments = _problem(3)
    moments.gram.copy_(torch.full((32, 32), 3.0) - 2.0 * torch.eye(32) * 6)  # not a Gram matrix: eigenvalues below 0
    _, warnings = round_share(weights, moments, Recipe(method=method, group_size=16))
    assert [("damping raised" in warning) for warning in warnings] == ([True] if method == "awq+gptq" else [])
