"""The C++ kernel (kernels/cpu): float32 arithmetic on packed weights, bound through ctypes."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable
from awqbench.ops.build import library
from awqbench.ops.layout import BLOCK, NIBBLE

log = logging.getLogger(__name__)

ROWS = 8  # the kernel's unit of work: the last unit overlaps the one before where there are more rows than that
# From this many input rows on, dequantizing a chunk of weight rows once and multiplying by torch beats decoding in
# registers for each tile of inputs. Like the scratch's size, measured (kernels/NOTES.md) but for NEON's.
DENSE_FROM = {"scalar": 4, "avx2": 16, "neon": 16, "avx512": 48}
SCRATCH_BYTES = 2 * 2**20
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # narrow.h
_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class _Packed(ctypes.Structure):
    """A layer as the C functions take it (w4a16.cpp)."""

    _fields_ = (
        *((name, _POINTER) for name in ("codes", "scales", "zeros", "bias")),
        *((name, _INT64) for name in ("n", "k", "group")),
        *((name, ctypes.c_int32) for name in ("width", "bias_type", "isa")),
    )


class _Functions(NamedTuple):
    multiply: Callable[..., None]
    dequantize: Callable[..., None]
    products: Callable[[int, int, int], int]
    names: tuple[str, ...]  # the instruction sets of this processor, the best last


@cache
def _functions() -> _Functions:
    loaded = library()
    multiply, dequantize = loaded.awqbench_w4a16_linear, loaded.awqbench_w4a16_dequantize
    multiply.argtypes = [_POINTER] * 3 + [_INT64] + [_INT] * 2
    dequantize.argtypes = [_POINTER] * 2 + [_INT64] * 2 + [_INT]
    multiply.restype = dequantize.restype = None
    products, name = loaded.awqbench_w4a16_products, loaded.awqbench_w4a16_isa_name
    products.argtypes = [_INT, _INT, _INT64]
    name.restype = ctypes.c_char_p
    names = (bytes(name(isa)).decode() for isa in range(loaded.awqbench_w4a16_best_isa() + 1))
    return _Functions(multiply, dequantize, products, tuple(names))


def instruction_sets() -> tuple[str, ...]:
    """Those that this processor has and the kernel knows; an index into them is an `isa`. The last is the best."""
    return _functions().names


def best_isa() -> int:
    """The best instruction set of this processor: 0 scalar, 1 AVX2 or NEON, 2 AVX-512."""
    return len(_functions().names) - 1


def instruction_set() -> str:
    """The vector instructions the kernel uses here: scalar, neon, avx2 or avx512."""
    return _functions().names[-1]


@cache
def unavailable() -> str | None:
    """Why the kernel cannot run on this machine, or None; logged once, as the fallback is far slower."""
    try:
        _functions()
    except BackendUnavailable as error:
        log.warning("falling back to a slow CPU path: %s", error)
        return str(error)
    return None


def fits(out_features: int, group_size: int, in_features: int | None = None) -> bool:
    """Whether the kernel is right for these sizes. Groups of half a block need whole blocks: `in_features` says."""
    whole = group_size % BLOCK == 0 or (2 * group_size == BLOCK and (in_features or 1) % BLOCK == 0)
    return whole and out_features >= ROWS


def plain(x: Tensor) -> bool:
    """Whether `linear` may be called outside torch's dispatcher, which takes as long as a small product: x is a tensor
    on a CPU and nothing watches, neither a compiler or a tracer nor a mode or a transform."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.peek_interpreter_stack() is None
    )


class _Layer(NamedTuple):
    """What a call needs to know of a layer besides its tensors."""

    packed: _Packed  # keeps the memory at `address`
    address: int
    n: int
    k: int
    isa: int
    dense_from: int
    dense_from_bfloat: int


# The key is all that the structure holds, so an entry can't be out of date, whatever happens to the tensors.
@lru_cache(maxsize=4096)
def _layer(
    codes: int, scales: int, zeros: int, bias: int | None, shape: tuple[int, int], group_size: int, width: int,
    bias_type: int, isa: int | None,
) -> _Layer:  # fmt: skip
    functions = _functions()
    isa = best_isa() if isa is None else isa
    (n, groups), dense_from = shape, DENSE_FROM[functions.names[isa]]
    k = groups * group_size
    packed = _Packed(codes, scales, zeros, bias, n, k, group_size, width, bias_type, isa)
    multiplied = functions.products(isa, width, group_size)
    return _Layer(packed, ctypes.addressof(packed), n, k, isa, dense_from, 2**62 if multiplied else dense_from)


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
    """x [..., K] times the transposed weight, summed in float32: [..., N] in x's type.

    `codes` uint8 [N, K / 2], or [N, K] for a `width` of 8, as `layout.pack_rows` makes them, `scales` float16 (or
    their bits) and `zeros` uint8 [N, groups], all contiguous. `isa` (0 scalar, 1 AVX2 or NEON, 2 AVX-512) defaults to
    the best of this processor. Below `dense_from` rows each result is summed in one fixed order, whatever the number of
    threads and rows; above, torch.mm sums. RuntimeError where the last dimension of x isn't K.
    """
    kind = TYPES.get(x.dtype)
    if kind is None:
        bias = None if bias is None else bias.float()
        out = linear(x.float(), codes, scales, zeros, bias, group_size, width, dense_from=dense_from, isa=isa)
        return out.to(x.dtype)
    pointer = None if bias is None else bias.data_ptr()
    bias_type = 0 if bias is None else TYPES[bias.dtype]
    shape: tuple[int, int] = zeros.shape  # type: ignore[assignment]
    layer = _layer(
        codes.data_ptr(), scales.data_ptr(), zeros.data_ptr(), pointer, shape, group_size, width, bias_type, isa
    )
    *leading, k = x.shape
    if k != layer.k:
        raise RuntimeError(f"x has {k} columns where the weight has {layer.k}")
    if not x.is_contiguous():
        x = x.contiguous()
    rows = x.numel() // k
    if dense_from is None:
        dense_from = layer.dense_from_bfloat if kind == 1 else layer.dense_from
    if rows >= dense_from:
        return _chunked(layer, x.view(rows, k), bias).view(*leading, layer.n)
    out = x.new_empty(*leading, layer.n)
    if rows:
        threads = torch.get_num_threads()
        _functions().multiply(layer.address, x.data_ptr(), out.data_ptr(), rows, kind, threads)
    return out


def _chunked(layer: _Layer, x: Tensor, bias: Tensor | None) -> Tensor:
    """The product by way of dequantized weight rows, as many at a time as the scratch holds."""
    dequantize, threads = _functions().dequantize, torch.get_num_threads()
    inputs = x.float()
    out = inputs.new_empty(x.shape[0], layer.n)
    step = max(ROWS, SCRATCH_BYTES // (4 * layer.k) // ROWS * ROWS)
    scratch = inputs.new_empty(min(step, layer.n), layer.k)
    for begin in range(0, layer.n, step):
        count = min(step, layer.n - begin)
        dequantize(layer.address, scratch.data_ptr(), begin, count, threads)
        torch.mm(inputs, scratch[:count].T, out=out[:, begin : begin + count])
    if bias is not None:
        out += bias
    return out.to(x.dtype)
