"""How a scale search judges trial weights: by the true output of a module, or by second moments of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from awqbench.quantization.calibrate import first_tensor


@dataclass(slots=True)
class ModuleCalls:
    """How a module was called on each calibration batch."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def record(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook."""
        self.calls.append((args, dict(kwargs)))

    def outputs(self, module: nn.Module) -> list[Tensor]:
        """Run `module` on every batch; its main outputs."""
        return [first_tensor(module(*args, **kwargs)) for args, kwargs in self.calls]


class ModuleLoss:
    """Mean squared error of a module's output with the linears' weights replaced: the loss of the paper.

    The original weights are put back after every call, also when it fails.
    """

    def __init__(self, module: nn.Module, calls: ModuleCalls, linears: Sequence[nn.Linear]) -> None:
        self._module, self._calls, self._linears = module, calls, linears
        self._expected = calls.outputs(module)

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
        pairs = zip(outputs, self._expected, strict=True)
        squares = sum(float((got.float() - expected.float()).square().sum()) for got, expected in pairs)
        return squares / sum(expected.numel() for expected in self._expected)


class Moments:
    """Second moments of a linear's input [tokens, in], float32."""

    def __init__(self, inputs: Tensor) -> None:
        self.tokens = inputs.shape[0]
        # Few tokens: multiplying by the input itself costs less than by its Gram matrix.
        self._few = inputs if inputs.shape[0] < inputs.shape[1] else None
        self._gram = inputs.T @ inputs if self._few is None else None

    def energy(self, weight: Tensor) -> float:
        """Squared norm of the outputs that a weight [out, in] float32 gives on all tokens."""
        if self._gram is None:
            assert self._few is not None
            return float((self._few @ weight.T).square().sum())
        return float((weight @ self._gram).mul_(weight).sum())


class OutputLoss:
    """Mean squared error of the linears' own outputs, from the moments of the input they share.

    Exact for a linear that is judged by its own output; an approximation where the paper looks at a whole attention or
    MLP.
    """

    def __init__(self, weights: Sequence[Tensor], moments: Moments) -> None:
        self._weights, self._moments = weights, moments
        self._outputs = moments.tokens * sum(weight.shape[0] for weight in weights)

    def __call__(self, weights: list[Tensor]) -> float:
        """Mean over tokens and the outputs of all linears."""
        pairs = zip(weights, self._weights, strict=True)
        return sum(self._moments.energy(trial - original.float()) for trial, original in pairs) / self._outputs
