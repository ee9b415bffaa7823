"""How a check runs a kernel, and what it looks at: fences, poison, strides, bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.guarded import POISON, Guarded, fenced_rows
from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.outcome import CheckFailed
from awqbench.kernelbench.reference import Reference


def results(kernel: Implementation, packed: Any, x: Tensor, n: int) -> Iterator[tuple[str, Tensor]]:
    """The result by each way in: the operator, and the raw interface with fences and poison everywhere."""
    fenced = fenced_rows(x)
    if x.is_cuda:  # the allocator hands the operator's output the block that is freed here
        torch.full((x.shape[0], n), float("nan"), dtype=x.dtype, device=x.device)
    yield "operator", kernel.run(packed, fenced)
    if not 0 < x.shape[0] <= kernel.raw_rows:
        return
    size = kernel.workspace_bytes(packed, x.shape[0])
    workspace = Guarded(size, x.device, fill=0)
    out = Guarded(x.shape[0] * n * x.element_size(), x.device)
    y = out.as_matrix(x.shape[0], n, x.dtype)
    # A first run on NaN leaves NaN in every partial sum and the counters as a run leaves them.
    kernel.run_into(packed, torch.full_like(x, float("nan")), y, workspace.inside)
    wait(x.device)
    out.inside.fill_(POISON)
    kernel.run_into(packed, fenced, y, workspace.inside)
    wait(x.device)
    if broken := out.damage():
        raise CheckFailed(f"M={x.shape[0]}: {broken} bytes around the output were written over")
    if broken := workspace.damage():
        raise CheckFailed(f"M={x.shape[0]}: {broken} bytes around the workspace were written over")
    yield "raw", y


def views(x: Tensor) -> dict[str, Tensor]:
    """The same values [m, k] in other strides, with NaN in between."""
    m, k = x.shape
    rows = torch.full((2 * m, k), float("nan"), dtype=x.dtype, device=x.device)
    rows[::2] = x
    return {
        "rows 64 apart": fenced_rows(x, 64),
        "rows an odd number apart": fenced_rows(x, 1),
        "columns": x.T.contiguous().T,
        "every other row": rows[::2],
    }


def same(y: Tensor, expected: Tensor, what: str) -> None:
    """CheckFailed where two results of a 16-bit type differ in any bit."""
    different = y.view(torch.int16) != expected.view(torch.int16)
    if wrong := int(different.sum()):
        raise CheckFailed(f"{what} differs in {wrong} of {y.numel()} results")


def where(y: Tensor, expected: Reference) -> str:
    """Where the largest error lies: often the whole diagnosis."""
    off = torch.nan_to_num((y.double() - expected.y).abs(), nan=float("inf"))
    row, column = divmod(int(off.argmax()), y.shape[1])
    return f"worst at y[{row}, {column}]: {y[row, column].item():.6g} for {expected.y[row, column].item():.6g}"


def wait(device: torch.device) -> None:
    """Until everything on the device is done; what went wrong in a kernel is raised here."""
    if device.type == "cuda":
        torch.cuda.synchronize()
