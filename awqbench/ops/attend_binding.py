"""The attention kernel (kernels/cuda/w4a16.h) bound through ctypes: one launch on torch's current stream."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from awqbench.ops import cuda_binding
from awqbench.ops.cuda_binding import DTYPES, aligned
from awqbench.ops.cuda_interface import functions, raise_error

HEADS_AT_ONCE = 16
MOST_COUNTERS = 4096  # one per sequence, key head and sixteen of its query heads


@cache
def workspace_bytes(batch: int, heads: int, key_heads: int, size: int, capacity: int, index: int) -> int:
    """What one launch needs on the device `index`. Raises ValueError for more heads than it has counters for."""
    counters = batch * key_heads * -(-heads // key_heads // HEADS_AT_ONCE)
    if counters > MOST_COUNTERS:
        raise ValueError(
            f"{batch} sequences of {key_heads} key heads and {heads} query heads (allowed: up to {MOST_COUNTERS} times "
            f"{HEADS_AT_ONCE} query heads of a key head, {counters} here)"
        )
    return int(functions().attend_workspace(batch, heads, key_heads, size, capacity, index))


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
    qkv, cosines, sines = (aligned(each.contiguous()) for each in (qkv, cosines, sines))
    launch(
        qkv, cosines, sines, keys, values, length,
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
    batch, key_heads, capacity, size = keys.shape
    heads = y.shape[1] // size
    code = functions().attend(
        *(None if each is None else each.data_ptr() for each in (
            qkv, cosines, sines, keys, values, length, padding, query_norm, key_norm, y, workspace)),
        workspace.numel(), batch, heads, key_heads, size, capacity, cosines.shape[1], window, eps, scale, cap,
        DTYPES[qkv.dtype], int(overlap), stream,
    )  # fmt: skip
    if code:
        raise_error("attend", code, f"{batch} x {heads} heads of {size}, {key_heads} of keys, capacity {capacity}")


def _row(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
