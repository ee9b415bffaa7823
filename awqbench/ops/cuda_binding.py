"""The product of up to 64 rows, and dequantizing, on torch's current stream; and what all kernels need beside them."""

from __future__ import annotations

import logging
from functools import cache, partial

import torch
from torch import Tensor

from awqbench.errors import BackendUnavailable
from awqbench.ops import cuda_layout
from awqbench.ops.cuda_interface import functions, raise_error
from awqbench.ops.cuda_workspace import Workspaces
from awqbench.ops.dequantize import dequantize_rows
from awqbench.ops.layout import BYTE

log = logging.getLogger(__name__)

DTYPES = {torch.float16: 0, torch.bfloat16: 1}  # as the C interface counts them
MAX_ROWS = 64  # of one launch of the packed kernel
CAPABILITY = (8, 0)
ALIGNMENT = 16  # bytes, of every pointer and of x's rows


def variants() -> list[str]:
    """The names of the kernel's variants; `gemm` takes an index into them, and 0 chooses by shape."""
    return str(functions().variants().decode()).split(",")


def unavailable(device: str | torch.device) -> str | None:
    """Why the kernels cannot run on a CUDA device, or None; logged once, as the fallback is far slower."""
    if not torch.cuda.is_available():
        return _unavailable(0)
    with torch.cuda.device(device):
        return _unavailable(torch.cuda.current_device())


@cache
def _unavailable(index: int) -> str | None:
    try:
        if not torch.cuda.is_available():
            raise BackendUnavailable("torch sees no CUDA device")
        found = torch.cuda.get_device_capability(index)
        if found < CAPABILITY:
            wanted = ".".join(map(str, CAPABILITY))
            raise BackendUnavailable(
                f"cuda:{index} has compute capability {found[0]}.{found[1]}, not {wanted} or newer"
            )
        functions()
        _try_out(torch.device("cuda", index))
    except BackendUnavailable as error:
        log.warning("falling back to a slow CUDA path: %s", error)
        return str(error)
    return None


def _try_out(device: torch.device) -> None:
    """Dequantize one tile and look at it: a driver that is too old shows here, not in the middle of a model."""
    codes = torch.arange(64 * 64, dtype=torch.int32).remainder(16).to(torch.uint8).view(64, 64)
    scales, zeros = torch.linspace(0.5, 2, 64).half().view(64, 1), (torch.arange(64) % 16).to(torch.uint8).view(64, 1)
    expected = dequantize_rows(codes, scales, zeros, 64, 64, BYTE).half()
    try:
        packed = cuda_layout.pack(codes.to(device), scales.to(device), zeros.to(device), 64)
        found = dequantize(*packed, 64, 64, 64, torch.float16).cpu()
    except RuntimeError as error:
        raise BackendUnavailable(f"the CUDA kernels do not run on {device}: {error}") from None
    if not torch.equal(found, expected):
        raise BackendUnavailable(f"the CUDA kernels give wrong weights on {device}")


@cache
def _workspaces(index: int) -> Workspaces:
    device = torch.device("cuda", index)
    zeros = partial(torch.zeros, dtype=torch.uint8, device=device)
    return Workspaces(
        zeros, torch.cuda.is_current_stream_capturing, lambda: torch.cuda.current_stream(device).synchronize()
    )


@cache
def _workspace_bytes(n: int, k: int, group_size: int, index: int) -> int:
    """What a weight needs with any number of rows, so that its first call of each kind cannot grow a workspace."""
    return max(1, *(workspace_bytes(m, n, k, group_size, index) for m in range(1, MAX_ROWS + 1)))


def workspace_bytes(m: int, n: int, k: int, group_size: int, index: int) -> int:
    """What one launch on m rows needs on the device `index`."""
    size = int(functions().workspace(m, n, k, group_size, index))
    if size < 0:
        raise RuntimeError(f"no workspace size for M={m} {n}x{k} g{group_size}: {size}")
    return size


def reserve(device: str | torch.device, out_features: int, inputs: int, group_size: int) -> None:
    """Make the current stream's workspace large enough for a weight, before a graph is captured."""
    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        workspace_of(current_stream(index), out_features, inputs, group_size, index)


def current_stream(index: int) -> int:
    """The handle of torch's current stream, without an object around it where torch has such a function."""
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return int(raw(index)) if raw else int(torch.cuda.current_stream(index).cuda_stream)


def workspace_of(stream: int, out_features: int, inputs: int, group_size: int, index: int) -> Tensor:
    """The workspace of the current stream, whose handle is `stream`, for any number of rows of a weight."""
    return _workspaces(index).take(stream, _workspace_bytes(out_features, inputs, group_size, index))


def gemm(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int, variant: int = 0
) -> Tensor:
    """One launch: x [M, K] of 1 to 64 rows, float16 or bfloat16 on a CUDA device, `bias` in its type."""
    (m, k), index = x.shape, x.get_device()
    if torch.cuda.current_device() != index:
        with torch.cuda.device(index):
            return gemm(x, tiles, steps, bias, out_features, group_size, variant)
    x = in_pieces(x)
    stream, out = current_stream(index), x.new_empty(m, out_features)
    workspace = workspace_of(stream, out_features, k, group_size, index)
    launch(x, tiles, steps, bias, out, workspace, group_size, variant, stream)
    return out


def in_pieces(x: Tensor) -> Tensor:
    """x [M, K], or a copy of it that kernels can read in 16-byte pieces. K is a multiple of 32: a copy is aligned."""
    if x.stride(1) != 1 or (x.shape[0] > 1 and x.stride(0) * 2 % ALIGNMENT) or x.data_ptr() % ALIGNMENT:
        return x.clone(memory_format=torch.contiguous_format)
    return x


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it at a multiple of 16 bytes."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def launch(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, y: Tensor, workspace: Tensor, group_size: int,
    variant: int, stream: int,
) -> None:  # fmt: skip
    """The C function itself: y [M, N] contiguous, `workspace` uint8 zeroed or as an earlier launch left it; x and all
    else as `gemm` has made it. Raises RuntimeError with CUDA's message where the launch fails."""
    (m, k), n = x.shape, y.shape[1]
    code = functions().gemm(
        x.data_ptr(), tiles.data_ptr(), steps.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
        workspace.data_ptr(), workspace.numel(), m, n, k, group_size, x.stride(0) if m > 1 else k, DTYPES[x.dtype],
        variant, stream,
    )  # fmt: skip
    if code:
        raise_error("gemm", code, f"variant {variant}, M={m} {n}x{k} g{group_size}")


def dequantize(
    tiles: Tensor, steps: Tensor, out_features: int, inputs: int, group_size: int, dtype: torch.dtype
) -> Tensor:
    """The weight [out_features, inputs] in float16 or bfloat16, each number rounded once. On a CUDA device."""
    index = tiles.get_device()
    out = torch.empty(out_features, inputs, dtype=dtype, device=tiles.device)
    with torch.cuda.device(index):
        code = functions().dequantize(
            tiles.data_ptr(), steps.data_ptr(), out.data_ptr(), out_features, inputs, group_size, DTYPES[dtype],
            current_stream(index),
        )  # fmt: skip
    if code:
        raise_error("dequantize", code, f"{out_features}x{inputs} g{group_size}")
    return out
