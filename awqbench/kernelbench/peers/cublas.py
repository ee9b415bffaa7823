"""cuBLAS on the dequantized weights: what 16-bit models run, and the only peer that wins at large batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.reference import dense
from awqbench.quantization.tensor import QuantizedTensor


class Cublas(Peer):
    """torch.mm on W rounded to 16 bits; reads four times the bytes."""

    name = "cublas"
    note = "torch.mm, 16-bit dense weights, torch's default reductions"
    url = "https://docs.nvidia.com/cuda/cublas"

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """Never: on a CPU it is that CPU's matmul."""
        return None

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """The dense weight [n, k]."""
        return {"weight": dense(weights, dtype), "bias": bias}

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T (+ bias)."""
        weight: Tensor = packed["weight"].T
        return torch.mm(x, weight) if packed["bias"] is None else torch.addmm(packed["bias"], x, weight)
