"""The kernels' C functions on memory of the caller's: output and workspace too, which the operator allocates itself."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from awqbench.ops import cuda_binding, cuda_build

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


def gemm(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, y: Tensor, workspace: Tensor, group: int,
    variant: int = 0,
) -> None:  # fmt: skip
    """y = x W^T + bias on the current stream. x [m, k] with columns side by side, y [m, n] contiguous; 1 <= m <= 64.

    Raises RuntimeError with CUDA's message where the launch fails.
    """
    (m, k), n = x.shape, y.shape[1]
    if x.stride(1) != 1 or not y.is_contiguous():
        raise ValueError(f"strides {x.stride()} of x, {y.stride()} of y")
    library = _library()
    code = library.awqbench_cuda_gemm(
        x.data_ptr(), tiles.data_ptr(), steps.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
        workspace.data_ptr() if workspace.numel() else None, workspace.numel(), m, n, k, group, x.stride(0),
        cuda_binding.DTYPES[x.dtype], variant, torch.cuda.current_stream(x.device).cuda_stream,
    )  # fmt: skip
    if code:
        raise RuntimeError(f"{library.awqbench_cuda_error(code).decode()} (variant {variant}, M={m} {n}x{k} g{group})")


def workspace_bytes(m: int, n: int, k: int, group: int, device: torch.device) -> int:
    """What `gemm` needs."""
    index = torch.cuda.current_device() if device.index is None else device.index
    size = int(_library().awqbench_cuda_workspace(m, n, k, group, index))
    if size < 0:
        raise RuntimeError(f"no workspace for M={m} {n}x{k} g{group} on {device}")
    return size


@cache
def _library() -> ctypes.CDLL:
    """Raises BackendUnavailable where the kernels can't be had."""
    library = cuda_build.library()
    library.awqbench_cuda_gemm.argtypes = [_POINTER] * 6 + [_LONG] * 6 + [_INT, _INT, _POINTER]
    library.awqbench_cuda_gemm.restype = _INT
    library.awqbench_cuda_workspace.argtypes = [_LONG] * 4 + [_INT]
    library.awqbench_cuda_workspace.restype = _LONG
    library.awqbench_cuda_error.argtypes, library.awqbench_cuda_error.restype = [_INT], ctypes.c_char_p
    return library
