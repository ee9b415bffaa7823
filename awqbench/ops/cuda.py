"""`torch.ops.awqbench.w4a16_gemm`: the packed linear of the CUDA kernels as one operator, on any device.

w4a16_gemm(x, tiles, steps, bias, out_features, group_size) -> [..., out_features] in x's type. x float [..., K];
`tiles` and `steps` as `cuda_layout.pack` makes them; a group size of K means scales per channel. On a CUDA device x in
float16 or bfloat16 runs the kernels; all else runs the reference, float32 from the same packed tensors. Inference only:
no gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear as dense_linear

from awqbench.ops import cuda_layout, cuda_prefill
from awqbench.ops.cuda_binding import DTYPES, MAX_ROWS, aligned, dequantize, gemm, reserve, unavailable, variants
from awqbench.ops.dequantize import dequantize_rows
from awqbench.ops.layout import BYTE

__all__ = [
    "DTYPES",
    "MAX_ROWS",
    "aligned",
    "dequantize",
    "gemm",
    "reference",
    "reserve",
    "through_dense",
    "unavailable",
    "variants",
    "w4a16_gemm",
]

SCRATCH_BYTES = 256 * 2**20  # of dequantized weights at a time
REFERENCE_BYTES = 8 * 2**20  # the same for the float32 reference


def _row_tiles(bytes_per_row: int, scratch: int) -> int:
    return max(1, scratch // (bytes_per_row * cuda_layout.ROWS))


def through_dense(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int
) -> Tensor:
    """x [M, K] for any M: weights dequantized in parts of SCRATCH_BYTES, multiplied by cuBLAS. For devices without
    wgmma, and for so many rows that dequantizing does not matter."""
    k, size = x.shape[1], cuda_layout.ROWS
    out = x.new_empty(x.shape[0], out_features)
    step = _row_tiles(2 * k, SCRATCH_BYTES)
    for first in range(0, tiles.shape[0], step):
        begin, end = first * size, min((first + step) * size, out_features)
        part = slice(first, first + step)
        weight = dequantize(tiles[part], steps[part], end - begin, k, group_size, x.dtype)
        if bias is None:
            torch.mm(x, weight.T, out=out[:, begin:end])
        else:
            torch.addmm(bias[begin:end], x, weight.T, out=out[:, begin:end])
    return out


def reference(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int
) -> Tensor:
    """x [M, K] on any device: exact float32 weights from the packed tensors, float32 sums, rounded to x's type once."""
    k, size = x.shape[1], cuda_layout.ROWS
    # Contiguous: a BLAS may sum in another order where strides differ.
    inputs, out = x.float().contiguous(), x.new_empty(x.shape[0], out_features)
    step = _row_tiles(4 * k, REFERENCE_BYTES)
    for first in range(0, tiles.shape[0], step):
        begin, end = first * size, min((first + step) * size, out_features)
        codes = cuda_layout.unpack_codes(tiles[first : first + step], end - begin, k)
        scales, zeros = cuda_layout.unpack_steps(steps[first : first + step], end - begin)
        weight = dequantize_rows(codes, scales, zeros, k, group_size, BYTE)
        out[:, begin:end] = dense_linear(inputs, weight, None if bias is None else bias[begin:end].float())
    return out


def check(inputs: int, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int) -> None:
    """ValueError unless all belong to a weight [out_features, inputs]: the kernels trust their sizes."""
    if not cuda_layout.fits(inputs, group_size):
        raise ValueError(f"the CUDA layout holds no rows of {inputs} in groups of {group_size}")
    expected = cuda_layout.shapes(out_features, inputs, group_size)
    if (tiles.shape, steps.shape) != expected or (bias is not None and bias.shape != (out_features,)):
        raise ValueError(
            f"tiles {list(tiles.shape)}, steps {list(steps.shape)}, bias {None if bias is None else list(bias.shape)} "
            f"do not belong to {out_features} x {inputs} in groups of {group_size}"
        )
    if (
        tiles.dtype != torch.int32
        or steps.dtype != torch.uint8
        or not (tiles.is_contiguous() and steps.is_contiguous())
    ):
        raise ValueError("tiles must be contiguous int32, steps contiguous uint8")


def _on_cpu(x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int) -> Tensor:
    check(x.shape[-1], tiles, steps, bias, out_features, group_size)
    out = reference(x.reshape(-1, x.shape[-1]), tiles, steps, bias, out_features, group_size)
    return out.view(*x.shape[:-1], out_features)


def _on_cuda(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int
) -> Tensor:
    check(x.shape[-1], tiles, steps, bias, out_features, group_size)
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[0] == 0:
        run = None
    elif x.dtype not in DTYPES:
        run = reference
    else:
        m, k = rows.shape
        if m <= MAX_ROWS:
            run = gemm
        elif cuda_prefill.preferred(m, out_features, k, group_size, x.get_device()):
            run = cuda_prefill.prefill
        else:
            run = through_dense
        tiles, steps = aligned(tiles), aligned(steps)
        bias = None if bias is None else aligned(bias.to(x.dtype).contiguous())
    out = rows.new_empty(0, out_features) if run is None else run(rows, tiles, steps, bias, out_features, group_size)
    return out.view(*x.shape[:-1], out_features)


def _shape_only(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int
) -> Tensor:
    check(x.shape[-1], tiles, steps, bias, out_features, group_size)
    return x.new_empty(*x.shape[:-1], out_features)


_library = torch.library.Library("awqbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "w4a16_gemm(Tensor x, Tensor tiles, Tensor steps, Tensor? bias, int out_features, int group_size) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
_library.impl("w4a16_gemm", _on_cpu, "CPU")  # type: ignore[no-untyped-call]
_library.impl("w4a16_gemm", _on_cuda, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("awqbench::w4a16_gemm", _shape_only, lib=_library)
w4a16_gemm = torch.ops.awqbench.w4a16_gemm.default
