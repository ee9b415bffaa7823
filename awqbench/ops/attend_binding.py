"""The attention kernel (kernels/cuda/w4a16.h) bound through ctypes: one launch on torch's current stream."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable
from awqbench.ops import cuda_binding
from awqbench.ops.cuda_binding import ALIGNMENT, DTYPES

_POINTER, _INT64, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
HEADS_AT_ONCE = 16
MOST_COUNTERS = 4096  # one per sequence, key head and sixteen of its query heads


class _Functions:
    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            self.attend, self.workspace = library.awqbench_cuda_attend, library.awqbench_cuda_attend_workspace
            self.error = library.awqbench_cuda_error
        except AttributeError as error:
            raise BackendUnavailable(f"the CUDA kernels are incomplete: {error}") from None
        self.attend.argtypes = (
            [_POINTER] * 11 + [_INT64] * 8 + [_DOUBLE] * 3 + [_INT, _INT, _POINTER]
        )  # fmt: skip
        self.workspace.argtypes, self.workspace.restype = [_INT64] * 5 + [_INT], _INT64
        self.error.restype = ctypes.c_char_p


@cache
def _functions() -> _Functions:
    from awqbench.ops.cuda_build import library  # `python -m` runs that module: importing it here would load it twice

    return _Functions(library())


@cache
def workspace_bytes(batch: int, heads: int, key_heads: int, size: int, capacity: int, index: int) -> int:
    """What one launch needs on the device `index`. Raises ValueError for more heads than it has counters for."""
    counters = batch * key_heads * -(-heads // key_heads // HEADS_AT_ONCE)
    if counters > MOST_COUNTERS:
        raise ValueError(
            f"{batch} sequences of {key_heads} key heads and {heads} query heads (allowed: up to {MOST_COUNTERS} times "
            f"{HEADS_AT_ONCE} query heads of a key head, {counters} here)"
        )
    return int(_functions().workspace(batch, heads, key_heads, size, capacity, index))


def reserve(device: str | torch.device, batch: int, heads: int, key_heads: int, size: int, capacity: int) -> None:
    """Make the current stream's workspace large enough for these sizes, before a graph is captured."""
    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        needed = workspace_bytes(batch, heads, key_heads, size, capacity, index)
        cuda_binding._workspaces(index).take(cuda_binding.current_stream(index), needed)


def attend(
    qkv: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: Tensor,
    *, padding: Tensor | None = None, query_norm: Tensor | None = None, key_norm: Tensor | None = None,
    eps: float = 0.0, scale: float, cap: float = 0.0, window: int = 0, overlap: bool = True,
) -> Tensor:  # fmt: skip
    """`awqbench.ops.attend.attend` by the kernel, for sizes that were checked; `overlap`: it may be started before the
    kernel in front of it has finished, and waits for it by itself."""
    index = qkv.get_device()
    if torch.cuda.current_device() != index:
        with torch.cuda.device(index):
            return attend(
                qkv, cosines, sines, keys, values, length, padding=padding, query_norm=query_norm, key_norm=key_norm,
                eps=eps, scale=scale, cap=cap, window=window, overlap=overlap,
            )  # fmt: skip
    batch, key_heads, capacity, size = keys.shape
    heads = qkv.shape[1] // size - 2 * key_heads
    stream, out = cuda_binding.current_stream(index), qkv.new_empty(batch, heads * size)
    needed = workspace_bytes(batch, heads, key_heads, size, capacity, index)
    launch(
        _plain(qkv), _plain(cosines), _plain(sines), keys, values, length,
        _row(padding), _row(query_norm), _row(key_norm), out,
        cuda_binding._workspaces(index).take(stream, needed), window, eps, scale, cap, overlap, stream,
    )  # fmt: skip
    return out


def launch(
    qkv: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: Tensor, padding: Tensor | None,
    query_norm: Tensor | None, key_norm: Tensor | None, y: Tensor, workspace: Tensor, window: int, eps: float,
    scale: float, cap: float, overlap: bool, stream: int,
) -> None:  # fmt: skip
    """The C function itself: everything contiguous, y [B, heads * size], `workspace` uint8 zeroed or as an earlier
    launch left it. Raises RuntimeError with CUDA's message where the launch fails."""
    (batch, key_heads, capacity, size), functions = keys.shape, _functions()
    heads = y.shape[1] // size
    code = functions.attend(
        *(None if each is None else each.data_ptr() for each in (
            qkv, cosines, sines, keys, values, length, padding, query_norm, key_norm, y, workspace)),
        workspace.numel(), batch, heads, key_heads, size, capacity, cosines.shape[1], window, eps, scale, cap,
        DTYPES[qkv.dtype], int(overlap), stream,
    )  # fmt: skip
    if code:
        said = bytes(functions.error(code)).decode()
        sizes = f"{batch} x {heads} heads of {size}, {key_heads} of keys, capacity {capacity}"
        raise RuntimeError(f"awqbench_cuda_attend: {said} ({sizes})")


def _plain(tensor: Tensor) -> Tensor:
    """Contiguous, from a multiple of 16 bytes on."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _row(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
