"""How a scale search judges trial weights: by the true output of a module, or by second moments of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from awqbench.quantization.calibrate import first_tensor
from awqbench.quantization.moments import Moments


@dataclass(slots=True)
class ModuleCalls:
    """How a module was called on some of the calibration batches, and its main outputs."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    expected: list[Tensor] = field(default_factory=list)

    def record(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook."""
        self.calls.append((args, dict(kwargs)))
        # A copy: the block may go on to change the tensor in place.
        self.expected.append(first_tensor(output).clone())

    def outputs(self, module: nn.Module) -> list[Tensor]:
        """Run `module` on every batch again; its main outputs."""
        return [first_tensor(module(*args, **kwargs)) for args, kwargs in self.calls]


class ModuleLoss:
    """Mean squared error of a module's output with the linears' weights replaced: the loss of the paper.

    The original weights are put back after every call, also when it fails.
    """

    def __init__(self, module: nn.Module, calls: ModuleCalls, linears: Sequence[nn.Linear]) -> None:
        self._module, self._calls, self._linears = module, calls, linears

    def __call__(self, weights: list[Tensor]) -> float:
        """Mean over all outputs of all batches, accumulated in float32 per batch."""
        originals = [linear.weight.data for linear in self._linears]
        try:
            for linear, weight in zip(self._linears, weights, strict=True):
                linear.weight.data = weight.to(linear.weight.dtype)
            outputs = self._calls.outputs(self._module)
        finally:
            for linear, original in zip(self._linears, originals, strict=True):
                linear.weight.data = original
        pairs = zip(outputs, self._calls.expected, strict=True)
        squares = sum(float((got.float() - expected.float()).square().sum()) for got, expected in pairs)
        return squares / sum(expected.numel() for expected in self._calls.expected)


class OutputLoss:
    """Mean squared error of the linears' own outputs, from the moments of the input that each reads.

    Exact for a linear that is judged by its own output; an approximation where the paper looks at a whole attention or
    MLP.
    """

    def __init__(self, weights: Sequence[Tensor], moments: Sequence[Moments]) -> None:
        self._weights, self._moments = weights, moments
        pairs = zip(weights, moments, strict=True)
        self._outputs = max(1, sum(moment.tokens * weight.shape[0] for weight, moment in pairs))

    def __call__(self, weights: list[Tensor]) -> float:
        """Mean over tokens and the outputs of all linears."""
        trials = zip(weights, self._weights, self._moments, strict=True)
        return sum(moment.energy(trial - weight.float()) for trial, weight, moment in trials) / self._outputs
