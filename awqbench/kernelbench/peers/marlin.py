"""vLLM's Marlin, with run-time zero points, as vLLM runs an AWQ checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers import vllm_library
from awqbench.kernelbench.peers.packing import awq_columns, marlin_scales, marlin_zeros
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor

GROUPS = (32, 64, 128)


class Marlin(Peer):
    """`marlin_gemm` after `awq_marlin_repack`; reductions in float32, vLLM's default."""

    name = "marlin"
    note = "vLLM's marlin_gemm, awq repack, fp32 reduce, no atomic add (vLLM's defaults)"
    url = "https://github.com/vllm-project/vllm"
    fp32_reduce = True

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """vLLM's library, and these two operators in it."""
        return vllm_library.missing_operators(device, "marlin_gemm", "awq_marlin_repack")

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """The conditions of vLLM's marlin_utils.py."""
        if shape.group not in GROUPS and shape.group != shape.k:
            return f"groups of {shape.group} (it has 32, 64, 128 and per channel)"
        if shape.n % 64 or shape.k % 128:
            return f"{shape.n}x{shape.k} (n in multiples of 64, k of 128)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """AWQ words, repacked by vLLM's own operator; scales in the type of the activations."""
        n, k = weights.codes.shape
        device = weights.codes.device
        codes = vllm_library.call(
            "awq_marlin_repack", b_q_weight=awq_columns(weights.codes), size_k=k, size_n=n, num_bits=4, is_a_8bit=False
        )
        count = torch.cuda.get_device_properties(device).multi_processor_count
        if bias is not None:
            raise ValueError("Marlin is timed without a bias")
        return {
            "b_q_weight": codes,
            "b_scales": marlin_scales(weights.scales.to(dtype), weights.group_size == k),
            "b_zeros_or_none": marlin_zeros(weights.zeros),
            "g_idx_or_none": torch.empty(0, dtype=torch.int32, device=device),
            "perm_or_none": torch.empty(0, dtype=torch.int32, device=device),
            "workspace": torch.zeros(count, dtype=torch.int32, device=device),
            "size_n": n,
            "size_k": k,
        }

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T."""
        y: Tensor = vllm_library.call(
            "marlin_gemm", a=x, c_or_none=None, b_bias_or_none=None, a_scales=None, global_scale=None,
            b_type_id=vllm_library.UINT4, size_m=x.shape[0], is_k_full=True, use_atomic_add=False,
            use_fp32_reduce=self.fp32_reduce, is_zp_float=False, **packed,
        )  # fmt: skip
        return y


class MarlinHalfReduce(Marlin):
    """The same with reductions in 16 bits: less to move, less exact."""

    name = "marlin-16"
    note = "as marlin, with use_fp32_reduce off"
    fp32_reduce = False
