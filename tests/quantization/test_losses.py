from __future__ import annotations

import pytest
import torch
from torch import nn

from awqbench.quantization.losses import ModuleCalls, ModuleLoss, Moments, OutputLoss


@pytest.mark.parametrize("tokens", [5, 50])  # fewer and more than input channels: by the inputs, by their Gram matrix
def test_energy_is_the_squared_norm_of_the_outputs(tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(tokens, 12, generator=generator), torch.randn(7, 12, generator=generator)
    moments = Moments(inputs)
    assert moments.energy(weight) == pytest.approx(float((inputs @ weight.T).square().sum()), rel=1e-5)


def test_output_loss_is_the_mean_over_tokens_and_outputs() -> None:
    inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    loss = OutputLoss([torch.zeros(1, 2), torch.zeros(2, 2)], Moments(inputs))
    # Squared errors 1, 4 of the first linear's outputs and 4, 0, 0, 0 of the second's.
    assert loss([torch.ones(1, 2), torch.tensor([[2.0, 0.0], [0.0, 0.0]])]) == pytest.approx(9 / 6)


def test_module_loss_is_the_mean_squared_error_of_the_modules_output() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).requires_grad_(False)
    calls = ModuleCalls([((torch.randn(5, 4),), {}), ((torch.randn(2, 4),), {})])
    expected = [module(args[0]) for args, _ in calls.calls]
    loss = ModuleLoss(module, calls, [module[0]])
    original, trial = module[0].weight.clone(), torch.randn(6, 4)
    value = loss([trial])
    assert torch.equal(module[0].weight, original)
    assert loss([original]) == 0.0
    module[0].weight.data = trial
    squares = sum(
        float((module(args[0]) - out).square().sum()) for (args, _), out in zip(calls.calls, expected, strict=True)
    )
    assert value == pytest.approx(squares / (7 * 3))


def test_module_loss_puts_the_weights_back_when_the_module_fails() -> None:
    module = nn.Linear(4, 4).requires_grad_(False)
    original = module.weight.clone()
    loss = ModuleLoss(module, ModuleCalls([((torch.randn(5, 4),), {})]), [module])
    with pytest.raises(RuntimeError):
        loss([torch.zeros(4, 3)])
    assert torch.equal(module.weight, original)
