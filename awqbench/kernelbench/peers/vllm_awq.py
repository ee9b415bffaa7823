"""vLLM's older AWQ kernel, from llm-awq: what runs where Marlin refuses a shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers import vllm_library
from awqbench.kernelbench.peers.packing import awq_columns
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor

SPLIT_K = 8  # vLLM passes the number of codes in a word
DEQUANTIZE_FROM = 256  # from this many rows on vLLM dequantizes and multiplies, which cublas stands for


class VllmAwq(Peer):
    """`awq_gemm` on AutoAWQ's tensors as they are; float16 only."""

    name = "awq_gemm"
    note = "vLLM's awq_gemm, split_k_iters 8 as vLLM passes it, below 256 rows"
    url = "https://github.com/vllm-project/vllm"
    dtypes = (torch.float16,)

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """vLLM's library and this operator in it."""
        return vllm_library.missing_operators(device, "awq_gemm")

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """What its tiles leave over, it would not compute."""
        if m >= DEQUANTIZE_FROM:
            return f"{m} rows (vLLM dequantizes from {DEQUANTIZE_FROM} on)"
        if shape.n % 64 or shape.k % 32 or shape.group % 32:
            return f"{shape} (n in multiples of 64, k and groups of 32)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """AutoAWQ's tensors."""
        if bias is not None:
            raise ValueError("awq_gemm is timed without a bias")
        return {
            "codes": awq_columns(weights.codes),
            "scales": weights.scales.T.contiguous(),
            "zeros": awq_columns(weights.zeros),
        }

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T."""
        y: Tensor = vllm_library.operator("awq_gemm")(x, packed["codes"], packed["scales"], packed["zeros"], SPLIT_K)
        return y
