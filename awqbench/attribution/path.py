"""The damage of every part at once: the gradient along the straight way from full precision to the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from awqbench.attribution.damage import Damage
from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Floats

Tick = Callable[[int], None]


@torch.enable_grad()
def path_integral(
    model: nn.Module, deltas: Mapping[str, Tensor], damage: Damage, units: Sequence[int], points: int, tick: Tick
) -> dict[str, Floats]:
    """Each parameter's contribution to the damage of each unit: arrays (units,), by name.

    Integrated gradients (Sundararajan, Taly and Yan, arXiv 1703.01365) over weights instead of inputs: with the full
    precision W0, the difference D and the damage L,

        c_p = integral over a from 0 to 1 of <dL/dW_p (W0 + a D), D_p> da,    sum over p of c_p = L(W0 + D) - L(W0)

    by Gauss-Legendre quadrature with `points` nodes, exact where L is a polynomial in a of degree 2 points - 1. A KL is
    nearly quadratic around its minimum, so a few nodes do. The model holds W0 + D when this is called and afterwards.
    `tick` gets the tokens done. Memory: the weights, the differences, and one gradient at a time.
    """
    parameters = {name: model.get_parameter(name) for name in deltas}
    contributions = {name: np.zeros(len(units)) for name in deltas}
    nodes, weights = np.polynomial.legendre.leggauss(points)
    place = 1.0
    share = {"now": 0.0, "unit": 0}

    def collect(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            found = torch.dot(parameter.grad.flatten(), deltas[name].flatten())
            contributions[name][int(share["unit"])] += share["now"] * float(found)
            parameter.grad = None

        return hook

    with _differentiable(parameters, collect):
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            _move(parameters, deltas, float(node) - place)
            place, share["now"] = float(node), float(weight)
            for row, unit in enumerate(units):
                share["unit"] = row
                damage.loss(model, unit).backward()  # type: ignore[no-untyped-call]
                tick(3 * damage.tokens[unit])
        _move(parameters, deltas, 1.0 - place)
    if not all(np.isfinite(values).all() for values in contributions.values()):
        raise InvalidMeasurement("a gradient is not finite: the damage cannot be attributed")
    return contributions


@contextmanager
def put_back(model: nn.Module, deltas: Mapping[str, Tensor], names: Sequence[str]) -> Iterator[None]:
    """The model with the modules `names` in full precision."""
    chosen = {name: delta for name, delta in deltas.items() if name.rpartition(".")[0] in set(names)}
    parameters = {name: model.get_parameter(name) for name in chosen}
    held = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = held[name] - chosen[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = held[name]


@torch.no_grad()
def measure(model: nn.Module, damage: Damage, units: Sequence[int], tick: Tick) -> Floats:
    """The damage of each unit: array (units,). Raises InvalidMeasurement where it is not finite."""
    found = np.empty(len(units))
    for row, unit in enumerate(units):
        found[row] = float(damage.loss(model, unit))
        tick(damage.tokens[unit])
    if not np.isfinite(found).all():
        raise InvalidMeasurement("the damage is not finite: the checkpoint's log-probabilities are broken")
    return found


@torch.no_grad()
def _move(parameters: Mapping[str, nn.Parameter], deltas: Mapping[str, Tensor], by: float) -> None:
    for name, parameter in parameters.items():
        parameter.add_(deltas[name], alpha=by)


@contextmanager
def _differentiable(
    parameters: Mapping[str, nn.Parameter], collect: Callable[[str], Callable[[Tensor], None]]
) -> Iterator[None]:
    handles = []
    for name, parameter in parameters.items():
        parameter.requires_grad_(True)
        handles.append(parameter.register_post_accumulate_grad_hook(collect(name)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(False)
