"""vLLM's Machete: Hopper's wgmma with weights as the register operand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.peers import vllm_library
from awqbench.kernelbench.peers.packing import plain_columns
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.problem import Shape
from awqbench.quantization.tensor import QuantizedTensor

HOPPER = (9, 0)


class Machete(Peer):
    """`machete_mm` with its own choice of schedule; zero points enter as -s * z in 16 bits, as in vLLM."""

    name = "machete"
    note = "vLLM's machete_mm, schedule by its heuristic; zero points pre-multiplied, -s * z in 16 bits"
    url = "https://github.com/vllm-project/vllm"

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        """vLLM's library, these two operators in it, and a Hopper GPU."""
        if reason := vllm_library.missing_operators(device, "machete_mm", "machete_prepack_B"):
            return reason
        capability = torch.cuda.get_device_capability(device)
        return None if capability == HOPPER else f"needs compute capability 9.0, not {capability[0]}.{capability[1]}"

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """The conditions of vLLM's machete_utils.py, groups of 64 let through: newer versions take them."""
        if shape.group not in {64, 128, shape.k}:
            return f"groups of {shape.group} (it has 64, 128 and per channel)"
        if shape.n % 128 or shape.k % 64:
            return f"{shape.n}x{shape.k} (n in multiples of 128, k of 64)"
        return self.wrong_dtype(dtype)

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """Eight neighbours of k to a word, [k / 8, n] column-major, prepacked by vLLM's own operator."""
        if bias is not None:
            raise ValueError("Machete is timed without a bias")
        words = plain_columns(weights.codes).T  # [k / 8, n] with stride 1 along k
        scales = weights.scales.to(dtype).T.contiguous()
        codes = vllm_library.call(
            "machete_prepack_B", B=words, a_type=dtype, b_type=vllm_library.UINT4, group_scales_type=dtype
        )
        group = -1 if weights.group_size == weights.codes.shape[1] else weights.group_size
        zeros = (-1.0 * scales * weights.zeros.T.to(dtype)).contiguous()
        return {"B": codes, "group_scales": scales, "group_zeros": zeros, "group_size": group}

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """x W^T."""
        y: Tensor = vllm_library.call(
            "machete_mm", A=x, b_type=vllm_library.UINT4, out_type=None, channel_scales=None, token_scales=None,
            schedule=None, **packed,
        )  # fmt: skip
        return y
