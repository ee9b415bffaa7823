"""The CUDA product with a norm or a gate before it and a residual after it (awqbench_cuda_fused of w4a16.h), and its
norm and gate alone, bound through ctypes. Arguments are those of `fused_linear`, checked; on torch's current stream.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from awqbench.ops import cuda_binding
from awqbench.ops.cuda_binding import ALIGNMENT, DTYPES, in_pieces, workspace_of
from awqbench.ops.cuda_interface import Gemm, functions, raise_error

MAX_TAKEN_IN = 8  # rows for which the product itself can compute a norm or a gate
BEFORE = ("", "norm", "silu", "gelu-tanh", "gelu", "relu")  # as the C interface counts


def before(norm: Tensor | None, gate: str | None) -> int:
    """The C interface's number of what is done to x."""
    return 1 if norm is not None else BEFORE.index(gate or "")


@cache
def takes_in(m: int, n: int, k: int, group_size: int, kind: int, index: int) -> bool:
    """Whether the product is to compute the norm or gate `kind` as it reads x, rather than `rows` before it."""
    return kind == 0 or bool(functions().takes_in(m, n, k, group_size, kind, index))


def gemm(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None = None, eps: float = 0.0, gate: str | None = None, residual: Tensor | None = None,
    variant: int = 0, apart: bool | None = None, overlap: bool = True,
) -> Tensor:  # fmt: skip
    """1 to 64 rows. `apart`: norm or gate by a kernel of its own; None: where that is expected to be faster. `overlap`:
    kernels start before the one in front of them has finished, where the device can (a variant's name decides for it).
    """
    (m, wide), index, kind = x.shape, x.get_device(), before(norm, gate)
    if torch.cuda.current_device() != index:
        with torch.cuda.device(index):
            return gemm(
                x, tiles, steps, bias, out_features, group_size, norm=norm, eps=eps, gate=gate, residual=residual,
                variant=variant, apart=apart, overlap=overlap,
            )  # fmt: skip
    k = wide // 2 if gate else wide
    if apart is None:
        apart = not takes_in(m, out_features, k, group_size, kind, index)
    x, stream, y = in_pieces(x), cuda_binding.current_stream(index), x.new_empty(m, out_features)
    scratch = x.new_empty(m, k) if apart and kind else None
    residual = None if residual is None else residual.contiguous()
    norm = None if norm is None else _floats(norm)
    workspace = workspace_of(stream, out_features, k, group_size, index)
    pointers = (_address(each) for each in (x, tiles, steps, bias, residual, norm, scratch, y, workspace))
    code = functions().fused(
        Gemm(
            *pointers, stream, workspace.numel(), m, out_features, k, group_size, x.stride(0) if m > 1 else wide,
            DTYPES[x.dtype], variant, kind, overlap, eps,
        )
    )  # fmt: skip
    if code:
        raise_error("fused", code, f"variant {variant}, M={m} {out_features}x{k} g{group_size}")
    return y


def rows(x: Tensor, norm: Tensor | None, eps: float, gate: str | None, overlap: bool = True) -> Tensor:
    """f(x) [M, K] alone, for any number of rows, with the bits that `gemm` multiplies by."""
    (m, wide), index = x.shape, x.get_device()
    if torch.cuda.current_device() != index:
        with torch.cuda.device(index):
            return rows(x, norm, eps, gate, overlap)
    x = in_pieces(x)
    out = x.new_empty(m, wide // 2 if gate else wide)
    norm = None if norm is None else _floats(norm)
    code = functions().rows(
        x.data_ptr(), _address(norm), out.data_ptr(), m, out.shape[1], x.stride(0) if m > 1 else wide, eps,
        before(norm, gate), DTYPES[x.dtype], overlap, cuda_binding.current_stream(index),
    )  # fmt: skip
    if code:
        raise_error("rows", code, f"M={m}, K={out.shape[1]}")
    return out


def _floats(norm: Tensor) -> Tensor:
    return norm.contiguous() if norm.data_ptr() % ALIGNMENT == 0 else norm.clone(memory_format=torch.contiguous_format)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
