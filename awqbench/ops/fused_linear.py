"""A packed linear with what stands before and after it in a decoder layer taken in: an RMS norm or a gate of its
inputs, a residual added to its results. One operator, `torch.ops.awqbench.w4a16_fused`, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from awqbench.ops import cuda, cuda_fused

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu-tanh": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
}


def fused_linear(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None = None, eps: float = 0.0, gate: str | None = None, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """y [M, out_features] = f(x) W^T + bias + residual in x's type, summed in float32 and rounded once.

    x [M, K], or [M, 2 K] with a gate; `tiles`, `steps` and `group_size` as `cuda_layout.pack` has them; `bias`
    [out_features] or None; `residual` [M, out_features] in x's type. f(x) is computed in float32 and rounded to x's
    type once: with `norm` (float32 [K]) x * norm / sqrt(mean(x^2) + eps), with `gate`, one of GATES,
    gate(x[:, :K]) * x[:, K:], else x. Inference only: no gradients. Raises ValueError for sizes and types that do not
    belong together.

    On a CUDA device kernels start early: weights and norm must not be written by the very kernel in front of this one.
    More than 64 rows are rounded once more before the residual is added.
    """
    y: Tensor = torch.ops.awqbench.w4a16_fused.default(
        x, tiles, steps, bias, out_features, group_size, norm=norm, eps=eps, gate=gate, residual=residual
    )
    return y


def inputs(x: Tensor, norm: Tensor | None, eps: float, gate: str | None) -> Tensor:
    """f(x) of `fused_linear` in plain torch: [M, K] in x's type."""
    if norm is not None:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * norm).to(x.dtype)
    if gate is not None:
        first, second = x.float().chunk(2, dim=-1)
        return (GATES[gate](first) * second).to(x.dtype)
    return x


def reference(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None = None, eps: float = 0.0, gate: str | None = None, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`fused_linear` in plain torch and float32, on any device."""
    _check(x, tiles, steps, bias, out_features, group_size, norm=norm, gate=gate, residual=residual)
    rows = inputs(x, norm, eps, gate).float()
    y = cuda.reference(rows, tiles, steps, None, out_features, group_size)
    for summand in (bias, residual):
        if summand is not None:
            y = y + summand.float()
    return y.to(x.dtype)


def _on_cuda(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None = None, eps: float = 0.0, gate: str | None = None, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if x.shape[0] == 0 or x.dtype not in cuda.DTYPES:
        return reference(
            x, tiles, steps, bias, out_features, group_size, norm=norm, eps=eps, gate=gate, residual=residual
        )
    _check(x, tiles, steps, bias, out_features, group_size, norm=norm, gate=gate, residual=residual)
    if x.shape[0] > cuda.MAX_ROWS:
        made = x if norm is None and gate is None else cuda_fused.rows(x, norm, eps, gate)
        y: Tensor = cuda.w4a16_gemm(made, tiles, steps, bias, out_features, group_size)
        return y if residual is None else y.add_(residual)
    bias = None if bias is None else cuda.aligned(bias.to(x.dtype).contiguous())
    return cuda_fused.gemm(
        x, cuda.aligned(tiles), cuda.aligned(steps), bias, out_features, group_size,
        norm=norm, eps=eps, gate=gate, residual=residual,
    )  # fmt: skip


def _check(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None, gate: str | None, residual: Tensor | None,
) -> None:  # fmt: skip
    """The kernels trust their sizes, so an error in them would read past the end."""
    if x.ndim != 2 or (gate is not None and x.shape[1] % 2):
        raise ValueError(f"x is {list(x.shape)}, not [M, K] (with a gate [M, 2 K])")
    if norm is not None and gate is not None:
        raise ValueError("a norm and a gate at once")
    if gate is not None and gate not in GATES:
        raise ValueError(f"unknown gate {gate!r} (allowed: {', '.join(GATES)})")
    k = x.shape[1] // (1 if gate is None else 2)
    cuda.check(k, tiles, steps, bias, out_features, group_size)
    if norm is not None and (norm.shape != (k,) or norm.dtype != torch.float32):
        raise ValueError(f"norm is {list(norm.shape)} {norm.dtype}, not float32 [{k}]")
    if residual is not None and (residual.shape != (x.shape[0], out_features) or residual.dtype != x.dtype):
        raise ValueError(
            f"residual is {list(residual.shape)} {residual.dtype}, not {x.dtype} [{x.shape[0]}, {out_features}]"
        )


def _shape_only(
    x: Tensor, tiles: Tensor, steps: Tensor, bias: Tensor | None, out_features: int, group_size: int,
    *, norm: Tensor | None = None, eps: float = 0.0, gate: str | None = None, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    _check(x, tiles, steps, bias, out_features, group_size, norm=norm, gate=gate, residual=residual)
    return x.new_empty(x.shape[0], out_features)


_library = torch.library.Library("awqbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "w4a16_fused(Tensor x, Tensor tiles, Tensor steps, Tensor? bias, int out_features, int group_size, *,"
    " Tensor? norm=None, float eps=0.0, str? gate=None, Tensor? residual=None) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
_library.impl("w4a16_fused", reference, "CPU")  # type: ignore[no-untyped-call]
_library.impl("w4a16_fused", _on_cuda, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("awqbench::w4a16_fused", _shape_only, lib=_library)
