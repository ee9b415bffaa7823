"""Our kernels as the checks and timings see them: the operator, and each variant by its number."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable, unknown_choice
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.problem import Shape
from awqbench.ops import cuda, cuda_binding, cuda_fused, cuda_layout, cuda_prefill
from awqbench.ops.fused_linear import fused_linear
from awqbench.quantization.tensor import QuantizedTensor


class Operator(Implementation):
    """`torch.ops.awqbench.w4a16_gemm`, on a CPU its reference. On a GPU also the raw C function, variant 0."""

    name = "ours"
    variant = 0
    takes_in = True

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

    def fused(self, packed: Any, x: Tensor, *, apart: bool | None = None, **around: Any) -> Tensor:
        """See Implementation."""
        arguments = (x, packed["tiles"], packed["steps"], packed["bias"], packed["n"], packed["group"])
        if (apart is None and self.variant == 0) or not x.is_cuda:
            return fused_linear(*arguments, **around)
        return cuda_fused.gemm(*arguments, **around, variant=self.variant, apart=apart)

    def ways(self, m: int, what: str) -> list[bool]:
        """See Implementation: the product takes in for few rows only, and nothing is where weights are dequantized."""
        if m > cuda.MAX_ROWS:
            return []
        return [False, True] if m <= cuda_fused.MAX_TAKEN_IN else [True]

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

    def ways(self, m: int, what: str) -> list[bool]:
        """See Implementation. What these cannot take in is computed by another variant, which sums otherwise."""
        other = self.name.removeprefix("ours/").startswith(("tall", "rows"))
        return [] if other else super().ways(m, what)

    def run(self, packed: Any, x: Tensor) -> Tensor:
        """See Implementation."""
        if x.shape[0] == 0:
            return x.new_empty(0, packed["n"])
        return self.product(
            x, packed["tiles"], packed["steps"], packed["bias"], packed["n"], packed["group"], self.variant
        )

    def product(self, *arguments: Any) -> Tensor:
        """The function that is called, with what it takes."""
        return cuda.gemm(*arguments)


class ManyRows(Variant):
    """One of the ways for more than 64 rows."""

    def __init__(self, device: torch.device, variant: int, name: str) -> None:
        super().__init__(device, variant, name)
        self.raw_rows = 0

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """What the layout does not hold, and few rows."""
        if m <= cuda.MAX_ROWS:
            return f"{m} rows (more than {cuda.MAX_ROWS})"
        return Operator.refusal(self, shape, m, dtype)


class Prefill(ManyRows):
    """One variant of the kernel for many rows, by number; also its C function."""

    def __init__(self, device: torch.device, variant: int, name: str) -> None:
        super().__init__(device, variant, name)
        self.raw_rows = sys.maxsize

    def product(self, *arguments: Any) -> Tensor:
        """See Variant."""
        return cuda_prefill.prefill(*arguments)

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        """See Implementation."""
        weights = packed["tiles"], packed["steps"], packed["bias"]
        stream = cuda_binding.current_stream(x.get_device())
        cuda_prefill.launch(x, *weights, y, workspace, packed["group"], self.variant, stream)

    def workspace_bytes(self, packed: Any, m: int) -> int:
        """See Implementation."""
        index = packed["tiles"].get_device()
        size = cuda_prefill.scratch_bytes(m, packed["n"], packed["k"], packed["group"], index, self.variant)
        return max(size or 0, 1)


class Dense(ManyRows):
    """All weights dequantized, then cuBLAS."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, 0, "dense")

    def product(self, *arguments: Any) -> Tensor:
        """See Variant."""
        return cuda.through_dense(*arguments[:-1])


class Repeated(ManyRows):
    """The kernel for up to 64 rows, several times: worth a look just above its limit."""

    note = "its launches' results are copied into one"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, 0, "repeated")

    def refusal(self, shape: Shape, m: int, dtype: torch.dtype) -> str | None:
        """The same as of all, and more than four launches."""
        return f"{m} rows (at most 256)" if m > 256 else super().refusal(shape, m, dtype)

    def product(self, *arguments: Any) -> Tensor:
        """See Variant."""
        return torch.cat([cuda.gemm(part, *arguments[1:]) for part in arguments[0].split(cuda.MAX_ROWS)])


def our_kernels(device: torch.device, variants: str = "default") -> list[Operator]:
    """The operator, on a GPU `Dense` too, against which its kernel for many rows stands, and variants beside them:
    `default` is none, `all`, or names or numbers, comma-separated.

    Raises BackendUnavailable where the kernels can't be built, UserError for a variant that does not exist.
    """
    kernels: list[Operator] = [Operator(device)]
    if device.type != "cuda":
        return kernels
    if reason := cuda.unavailable(device):
        raise BackendUnavailable(reason)
    kernels.append(Dense(device))
    known = variants_of(device)
    if variants == "all":
        return kernels + list(known.values())
    for piece in (piece.strip() for piece in variants.split(",")):
        name = list(known)[int(piece) - 1] if piece.isdigit() and 0 < int(piece) <= len(known) else piece
        if name in {"", "default", "0"}:
            continue
        if name not in known:
            raise unknown_choice("kernel variant", piece, [*known, "default", "all"])
        kernels.append(known[name])
    return kernels


def variants_of(device: torch.device) -> dict[str, Operator]:
    """All variants by name; their places, counted from 1, are the numbers that `our_kernels` takes."""
    few = {name: Variant(device, number, name) for number, name in enumerate(cuda.variants()) if number}
    many: dict[str, Operator] = {"repeated": Repeated(device)}
    if cuda_prefill.scratch_bytes(128, 64, 64, 64, device.index or 0) is not None:
        for number, name in enumerate(cuda_prefill.variants()):
            if number:
                many[f"prefill-{name}"] = Prefill(device, number, f"prefill-{name}")
    return {**few, **many}
