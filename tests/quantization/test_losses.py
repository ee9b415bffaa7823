from __future__ import annotations

import pytest
import torch
from torch import nn

from awqbench.quantization.losses import ModuleCalls, ModuleLoss, OutputLoss
from awqbench.quantization.moments import Moments


def _moments(inputs: torch.Tensor) -> Moments:
    moments = Moments(inputs.shape[1])
    moments.add(inputs)
    return moments


def test_output_loss_is_the_mean_over_tokens_and_outputs() -> None:
    inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    moments = _moments(inputs)
    loss = OutputLoss([torch.zeros(1, 2), torch.zeros(2, 2)], [moments, moments])
    # Squared errors 1, 4 of the first linear's outputs and 4, 0, 0, 0 of the second's.
    assert loss([torch.ones(1, 2), torch.tensor([[2.0, 0.0], [0.0, 0.0]])]) == pytest.approx(9 / 6)


def test_each_linear_is_judged_on_the_tokens_it_saw() -> None:
    two, one = _moments(torch.eye(2)), _moments(torch.tensor([[3.0, 0.0]]))
    loss = OutputLoss([torch.zeros(1, 2), torch.zeros(1, 2)], [two, one])
    # Squared errors 1 and 1 on the first linear's two tokens, 9 on the second's one.
    assert loss([torch.ones(1, 2), torch.ones(1, 2)]) == pytest.approx(11 / 3)
    assert OutputLoss([torch.zeros(1, 2)], [Moments(2)])([torch.ones(1, 2)]) == 0.0


def test_module_loss_is_the_mean_squared_error_of_the_modules_output() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).requires_grad_(False)
    calls = ModuleCalls()
    handle = module.register_forward_hook(calls.record, with_kwargs=True)
    expected = [module(torch.randn(tokens, 4)) for tokens in (5, 2)]
    handle.remove()
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
    calls = ModuleCalls([((torch.randn(5, 4),), {})], [torch.zeros(5, 4)])
    loss = ModuleLoss(module, calls, [module])
    with pytest.raises(RuntimeError):
        loss([torch.zeros(4, 3)])
    assert torch.equal(module.weight, original)
