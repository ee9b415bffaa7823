from __future__ import annotations

import pytest
import torch

from awqbench.quantization import clip
from awqbench.quantization.clip import clip_weight
from awqbench.quantization.moments import Moments
from awqbench.quantization.rounding import fake_quantize

BITS, GROUP = 3, 16


@pytest.fixture
def weight() -> torch.Tensor:
    """Heavy-tailed, so that clipping pays; 10 rows divide by neither 64 nor 256."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(10, 48, generator=generator) ** 3


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(40, 48, generator=torch.Generator().manual_seed(4))


def _grams(inputs: torch.Tensor) -> torch.Tensor:
    moments = Moments(inputs.shape[1])
    moments.add(inputs)
    return moments.blocks(GROUP)


def test_each_group_gets_the_best_of_the_ten_bounds_by_brute_force(weight: torch.Tensor, inputs: torch.Tensor) -> None:
    expected = weight.clone()
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], GROUP):
            group = weight[row : row + 1, start : start + GROUP]
            tokens = inputs[:, start : start + GROUP]
            trials = []
            for step in range(10):
                bound = float(group.abs().max()) * (1 - step / 20)
                error = fake_quantize(group.clamp(-bound, bound), BITS, GROUP) - group
                trials.append((float((tokens @ error.T).square().sum()), bound))
            bound = min(trials)[1]
            expected[row, start : start + GROUP] = group.clamp(-bound, bound)
    clipped = clip_weight(weight, _grams(inputs), BITS, GROUP)
    assert clipped == pytest.approx(expected, rel=1e-6)
    assert not torch.equal(clipped, weight)


def test_chunks_do_not_change_the_result(
    weight: torch.Tensor, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    grams = _grams(inputs)
    whole = clip_weight(weight, grams, BITS, GROUP)
    monkeypatch.setattr(clip, "_CHUNK_WEIGHTS", 3 * weight.shape[1])
    assert torch.equal(clip_weight(weight, grams, BITS, GROUP), whole)


def test_the_weight_itself_is_left_alone(weight: torch.Tensor, inputs: torch.Tensor) -> None:
    before = weight.clone()
    clip_weight(weight, _grams(inputs), BITS, GROUP)
    assert torch.equal(weight, before)


def test_inputs_that_are_not_finite_clip_nothing(weight: torch.Tensor, inputs: torch.Tensor) -> None:
    inputs[0, 0] = torch.inf
    clipped = clip_weight(weight, _grams(inputs), BITS, GROUP)
    assert torch.equal(clipped[:, :GROUP], weight[:, :GROUP])
