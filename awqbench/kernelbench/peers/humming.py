"""Humming (humming-kernels): kernels compiled for each shape at run time, chosen by its own heuristics."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers.packing import awq_columns
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor


class Humming(Peer):
    """A HummingLayer loaded from AWQ tensors, with the configuration its heuristics choose."""

    name = "humming"
    note = "HummingLayer from AWQ tensors, default tuning (its heuristics), compiled before timing"
    url = "https://github.com/vllm-project/humming"

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """The package, and what it imports."""
        if device.type != "cuda":
            return "needs a GPU"
        try:
            import_module("humming.layer")
        except Exception as error:  # it looks for a compiler and a device while it is imported
            return f"humming-kernels can't be imported: {type(error).__name__}: {error}; pip install humming-kernels"
        return None

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """AWQ words hold eight outputs; what else it does not take, it says itself."""
        if shape.n % 8:
            return f"{shape.n} outputs (multiples of 8)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """The layer; scales in the type of the activations."""
        if bias is not None:
            raise ValueError("Humming is timed without a bias")
        n, k = weights.codes.shape
        layer = import_module("humming.layer").HummingLayer(
            shape_n=n, shape_k=k, torch_dtype=dtype,
            weight_config={"quant_method": "awq", "bits": 4, "group_size": weights.group_size, "zero_point": True},
        ).to(weights.codes.device)  # fmt: skip
        layer.load_from_tensors(
            {
                "qweight": awq_columns(weights.codes),
                "scales": weights.scales.T.to(dtype).contiguous(),
                "qzeros": awq_columns(weights.zeros),
            }
        )
        layer.transform()
        return layer

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T."""
        y: Tensor = packed(x)
        return y
