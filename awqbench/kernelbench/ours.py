"""Our kernels as the checks and timings see them: the operator, and each variant by its number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable, unknown_choice
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.problem import Shape
from awqbench.ops import cuda, cuda_binding, cuda_layout
from awqbench.quantization.tensor import QuantizedTensor


class Operator(Implementation):
    """`torch.ops.awqbench.w4a16_gemm`, on a CPU its reference. On a GPU also the raw C function, variant 0."""

    name = "ours"
    variant = 0

    def __init__(self, device: torch.device) -> None:
        self.raw_rows = cuda.MAX_ROWS if device.type == "cuda" else 0

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """What the layout does not hold."""
        if cuda_layout.fits(shape.k, shape.group):
            return None
        return f"{shape} (groups of 32, multiples of 64, or rows in multiples of 32 per channel)"

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        """Tiles and steps of cuda_layout."""
        tiles, steps = cuda_layout.pack(weights.codes, weights.scales, weights.zeros, weights.group_size)
        n, k = weights.codes.shape
        return {"tiles": tiles, "steps": steps, "bias": bias, "n": n, "k": k, "group": weights.group_size}

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """See Implementation."""
        y: Tensor = cuda.w4a16_gemm(x, packed["tiles"], packed["steps"], packed["bias"], packed["n"], packed["group"])
        return y

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        """See Implementation."""
        stream = cuda_binding.current_stream(x.get_device())
        weights = packed["tiles"], packed["steps"], packed["bias"]
        cuda_binding.launch(x, *weights, y, workspace, packed["group"], self.variant, stream)

    def workspace_bytes(self, packed: Any, m: int) -> int:
        """See Implementation."""
        index = packed["tiles"].get_device()
        return cuda_binding.workspace_bytes(m, packed["n"], packed["k"], packed["group"], index)

    def unpack(self, packed: Any) -> QuantizedTensor:
        """See Implementation."""
        back = cuda_layout.unpack(packed["tiles"], packed["steps"], packed["n"], packed["k"], packed["group"])
        return QuantizedTensor(*back, 4, packed["group"])


class Variant(Operator):
    """One variant by number, through the C function alone; at most 64 rows."""

    def __init__(self, device: torch.device, variant: int, name: str) -> None:
        super().__init__(device)
        self.name, self.variant = f"ours/{name}", variant

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """What the layout does not hold, and rows past the C function's limit."""
        if m > cuda.MAX_ROWS:
            return f"{m} rows (at most {cuda.MAX_ROWS})"
        return super().refusal(shape, m, dtype)

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """See Implementation."""
        if x.shape[0] == 0:
            return x.new_empty(0, packed["n"])
        return cuda.gemm(
            x, packed["tiles"], packed["steps"], packed["bias"], packed["n"], packed["group"], self.variant
        )


def our_kernels(device: torch.device, variants: str = "default") -> list[Operator]:
    """The operator, and variants beside it: `default` is none, `all`, or names or numbers, comma-separated.

    Raises BackendUnavailable where the kernels can't be built, UserError for a variant that does not exist.
    """
    kernels: list[Operator] = [Operator(device)]
    if device.type != "cuda":
        return kernels
    if reason := cuda.unavailable(device):
        raise BackendUnavailable(reason)
    names = cuda.variants()
    if variants == "all":
        wanted = list(range(1, len(names)))
    else:
        chosen = [piece.strip() for piece in variants.split(",") if piece.strip() not in {"", "default", "0"}]
        wanted = [_number(piece, names) for piece in chosen]
    return kernels + [Variant(device, number, names[number]) for number in wanted]


def _number(text: str, names: list[str]) -> int:
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    raise unknown_choice("kernel variant", text, [*names, "default", "all"])
