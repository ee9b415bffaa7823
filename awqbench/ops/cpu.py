"""The C++ kernel (kernels/cpu): float32 arithmetic on packed weights, bound through ctypes."""

from __future__ import annotations

import ctypes
import logging
from functools import cache

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable
from awqbench.ops.build import library
from awqbench.ops.layout import BLOCK, NIBBLE

log = logging.getLogger(__name__)

ROWS = 8  # the kernel's unit of work; the AutoAWQ layout's output size is a multiple of it
# From this many input rows on (scalar, AVX2, AVX-512), dequantizing a chunk of weight rows once and multiplying by
# torch beats decoding in registers for each tile of inputs. Like the scratch's size, measured: kernels/NOTES.md.
DENSE_FROM = (4, 16, 48)
SCRATCH_BYTES = 2 * 2**20
_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


@cache
def _functions() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer, int]:
    loaded = library()
    multiply, dequantize = loaded.awqbench_w4a16_linear, loaded.awqbench_w4a16_dequantize
    multiply.argtypes = [_POINTER] * 6 + [_INT64] * 4 + [_INT] * 3
    dequantize.argtypes = [_POINTER] * 4 + [_INT64] * 4 + [_INT] * 3
    multiply.restype = dequantize.restype = None
    return multiply, dequantize, int(loaded.awqbench_w4a16_best_isa())


def best_isa() -> int:
    """The best instruction set of this processor: 0 scalar, 1 AVX2, 2 AVX-512."""
    return _functions()[2]


@cache
def instruction_set() -> str:
    """The vector instructions the kernel uses here: scalar, avx2 or avx512."""
    name = library().awqbench_w4a16_isa_name
    name.restype = ctypes.c_char_p
    return bytes(name(_functions()[2])).decode()


@cache
def unavailable() -> str | None:
    """Why the kernel cannot run on this machine, or None; logged once, as the fallback is far slower."""
    try:
        _functions()
    except BackendUnavailable as error:
        log.warning("falling back to a slow CPU path: %s", error)
        return str(error)
    return None


def fits(out_features: int, group_size: int) -> bool:
    """Whether the kernel is right for these sizes."""
    return group_size % BLOCK == 0 and out_features % ROWS == 0


def linear(
    x: Tensor,
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    bias: Tensor | None,
    group_size: int,
    width: int = NIBBLE,
    *,
    dense_from: int | None = None,
    isa: int | None = None,
) -> Tensor:
    """x [rows, K] times the transposed weight, computed in float32 and returned in x's type.

    `codes` uint8 [N, K / 2], or [N, K] for a `width` of 8, as `layout.pack_rows` makes them, `scales` float16 and
    `zeros` uint8 [N, groups], all contiguous. `isa` (0 scalar, 1 AVX2, 2 AVX-512) defaults to the best of this
    processor. Below `dense_from` rows each result is summed in one fixed order, whatever the number of threads and
    rows; above, torch.mm sums.
    """
    multiply, dequantize, best = _functions()
    isa = best if isa is None else isa
    threads = torch.get_num_threads()
    inputs = x if x.dtype is torch.float32 and x.is_contiguous() else x.float().contiguous()
    offset = bias if bias is None or bias.dtype is torch.float32 else bias.float()
    (rows, k), n = inputs.shape, zeros.shape[0]
    out = inputs.new_empty(rows, n)
    weight = codes.data_ptr(), scales.data_ptr(), zeros.data_ptr()
    if rows < (DENSE_FROM[isa] if dense_from is None else dense_from):
        pointer = None if offset is None else offset.data_ptr()
        multiply(inputs.data_ptr(), *weight, pointer, out.data_ptr(), rows, n, k, group_size, width, threads, isa)
    else:
        step = max(ROWS, SCRATCH_BYTES // (4 * k) // ROWS * ROWS)
        scratch = inputs.new_empty(min(step, n), k)
        for begin in range(0, n, step):
            count = min(step, n - begin)
            dequantize(*weight, scratch.data_ptr(), begin, count, k, group_size, width, threads, isa)
            torch.mm(inputs, scratch[:count].T, out=out[:, begin : begin + count])
        if offset is not None:
            out += offset
    return out if x.dtype is torch.float32 else out.to(x.dtype)
