"""The packed product for many rows of x (kernels/cuda/prefill*.cu), for devices with wgmma, and when it is chosen.

The choice is counted, **not measured** (kernels/NOTES.md, "Prefill"). Against it stands dequantizing all weights and a
dense product: 2.52 bytes more per weight at 3.0 TB/s, which is 332 / M of the dense product's time at 790 TFLOP/s. This
kernel is expected to take 1 / 0.92 of that time where the tensor cores bind, so the two meet at 332 / (1 / 0.92 - 1) =
3800 rows. From 65 rows on it is also expected to be ahead of several launches of the kernel for 64, each of which reads
all weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awqbench.ops import cuda_binding
from awqbench.ops.cuda_interface import functions, raise_error

DENSE_FROM = 4096  # rows of x


def variants() -> list[str]:
    """The names of the kernel's variants; `prefill` takes an index into them, and 0 chooses by counted costs."""
    return str(functions().prefill_variants().decode()).split(",")


def scratch_bytes(m: int, n: int, k: int, group_size: int, index: int, variant: int = 0) -> int | None:
    """What one launch on m rows needs for partial sums on the device `index`; None where the kernel cannot run."""
    size = int(functions().prefill_scratch(m, n, k, group_size, variant, index))
    return None if size < 0 else size


def preferred(m: int, n: int, k: int, group_size: int, index: int) -> bool:
    """Whether this kernel is expected to be faster, from 65 rows on, than a dense product of dequantized weights."""
    return m < DENSE_FROM and scratch_bytes(m, n, k, group_size, index) is not None


def prefill(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int, variant: int = 0
) -> Tensor:
    """x [M, K] of 1 row or more, float16 or bfloat16 on a CUDA device, `bias` in its type -> [M, out_features]. Weights
    are rounded once to x's type. Raises RuntimeError where the kernel cannot run."""
    (m, k), index = x.shape, x.get_device()
    if torch.cuda.current_device() != index:
        with torch.cuda.device(index):
            return prefill(x, tiles, steps, bias, out_features, group_size, variant)
    x = cuda_binding.in_pieces(x)
    # From torch's allocator and in any state: there are no counters in it, and a graph being captured keeps it.
    size = scratch_bytes(m, out_features, k, group_size, index, variant)
    scratch = torch.empty(max(size or 0, 1), dtype=torch.uint8, device=x.device)
    out = x.new_empty(m, out_features)
    launch(x, tiles, steps, bias, out, scratch, group_size, variant, cuda_binding.current_stream(index))
    return out


def launch(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, y: Tensor, scratch: Tensor, group_size: int,
    variant: int, stream: int,
) -> None:  # fmt: skip
    """The C function itself: y [M, N] contiguous, `scratch` uint8 of `scratch_bytes`; x and all else as `prefill` has
    made it. Raises RuntimeError with CUDA's message where the launch fails."""
    (m, k), n = x.shape, y.shape[1]
    code = functions().prefill(
        x.data_ptr(), tiles.data_ptr(), steps.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
        scratch.data_ptr(), scratch.numel(), m, n, k, group_size, x.stride(0) if m > 1 else k,
        cuda_binding.DTYPES[x.dtype], variant, stream,
    )  # fmt: skip
    if code:
        raise_error("prefill", code, f"variant {variant}, M={m} {n}x{k} g{group_size}")
