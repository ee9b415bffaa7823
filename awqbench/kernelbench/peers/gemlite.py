"""gemlite: Triton kernels with a configuration file per device, and autotuning for shapes it does not hold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor


class Gemlite(Peer):
    """`A16Wn` from codes, scales and zero points; the shipped configuration of the device, tuned where it has none."""

    name = "gemlite"
    note = "A16Wn, the configuration it ships for the device, its fast autotuning elsewhere; tuned before timing"
    url = "https://github.com/mobiusml/gemlite"

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """The package, which asks for a CUDA device while it is imported."""
        if device.type != "cuda":
            return "needs a GPU"
        try:
            import_module("gemlite.helper")
        except Exception as error:
            return f"gemlite can't be imported: {type(error).__name__}: {error}; pip install gemlite"
        return None

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """Its smallest sizes."""
        if shape.k % 32 or shape.group < 16:
            return f"{shape} (k in multiples of 32, groups of 16 or more)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """Its linear; scales and zero points in the type of the activations."""
        processor = import_module("gemlite.helper").A16Wn(device=str(weights.codes.device), dtype=dtype)
        return processor.from_weights(
            weights.codes, weights.scales.to(dtype), weights.zeros.to(dtype), 4, weights.group_size, bias=bias
        )

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T (+ bias)."""
        y: Tensor = packed.forward(x)
        return y
