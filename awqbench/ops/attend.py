"""`torch.ops.awqbench.attend`: the attention of one decoding step as one operator, on any device.

Everything that stands between the product that gives queries, keys and values and the one that takes the result: the
norms of heads, rotary, the write to the static cache, attention over it. Inference only: no gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awqbench.ops import attend_binding
from awqbench.ops.cuda_binding import DTYPES

__all__ = ["MAX_BATCH", "MAX_SIZE", "attend", "reference"]

MAX_BATCH = 64
MAX_SIZE = 256


def attend(
    qkv: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: Tensor,
    *, padding: Tensor | None = None, query_norm: Tensor | None = None, key_norm: Tensor | None = None,
    eps: float = 0.0, scale: float, cap: float = 0.0, window: int = 0,
) -> Tensor:  # fmt: skip
    """One token for each of B sequences -> [B, heads * size] in qkv's type; its key and value are stored at `length`.

    `qkv` [B, (heads + 2 key_heads) * size]: the heads of the queries, of the keys, of the values. `keys` and `values`
    [B, key_heads, capacity, size], contiguous, of qkv's type, written in place. `length` int64 [1], on the device: how
    many ids the cache holds, less than its capacity. `cosines` and `sines` float32 [positions, rotary], positions no
    fewer than the capacity: the first `rotary` numbers of a head turn, in two halves (number i with i + rotary / 2).
    `padding` int64 [B]: so many places on the left hold no tokens, and the new token's position is length - padding.
    `query_norm` and `key_norm` float32 [size]: an RMS norm of each head with `eps`, before it turns. Scores are
    q k * scale, and cap * tanh(score / cap) with a cap. With a window only the last `window` places are seen, the new
    one included.

    On a CUDA device float16 and bfloat16 run the kernel, all else plain torch. Queries and keys are rounded to qkv's
    type once, after norm and rotary; everything else is float32 until the result is rounded. Raises ValueError for
    sizes that do not belong together, on CUDA RuntimeError for keys or values that do not start at a multiple of 16
    bytes.
    """
    found: Tensor = torch.ops.awqbench.attend.default(
        qkv, cosines, sines, keys, values, length, padding=padding, query_norm=query_norm, key_norm=key_norm, eps=eps,
        scale=scale, cap=cap, window=window,
    )  # fmt: skip
    return found


def reference(
    qkv: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: Tensor,
    *, padding: Tensor | None = None, query_norm: Tensor | None = None, key_norm: Tensor | None = None,
    eps: float = 0.0, scale: float, cap: float = 0.0, window: int = 0,
) -> Tensor:  # fmt: skip
    """`attend` in plain torch, on any device and in any type. It waits for no device: it can be captured."""
    batch, key_heads, capacity, size = keys.shape
    heads = qkv.shape[1] // size - 2 * key_heads
    q, k, v = torch.split(qkv.view(batch, -1, size), [heads, key_heads, key_heads], dim=1)
    position = length.expand(batch) if padding is None else (length - padding).clamp(min=0)
    cos, sin = cosines[position][:, None], sines[position][:, None]
    q = _turned(_normed(q.float(), query_norm, eps), cos, sin).to(qkv.dtype)
    k = _turned(_normed(k.float(), key_norm, eps), cos, sin).to(qkv.dtype)
    keys.index_copy_(2, length, k[:, :, None])
    values.index_copy_(2, length, v[:, :, None])

    queries = q.float().view(batch, key_heads, heads // key_heads, size)
    scores = queries @ keys.float().transpose(2, 3) * scale
    if cap > 0:
        scores = cap * torch.tanh(scores / cap)
    places = torch.arange(capacity, device=keys.device)
    first = torch.zeros_like(position) if padding is None else torch.minimum(padding, length)
    if window > 0:
        first = torch.maximum(first, length - window + 1)
    seen = (places <= length) & (places >= first[:, None])
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
    # What is not seen may hold anything: nothing times NaN would be NaN.
    shown = values.float().masked_fill(~seen[:, None, :, None], 0.0)
    return (weights @ shown).to(qkv.dtype).reshape(batch, heads * size)


def _normed(x: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    return x if norm is None else x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norm


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, heads, size]; cos and sin [B, 1, rotary]."""
    rotary = cos.shape[-1]
    turning, rest = x[..., :rotary], x[..., rotary:]
    low, high = turning.chunk(2, dim=-1)
    return torch.cat([turning * cos + torch.cat([-high, low], dim=-1) * sin, rest], dim=-1)


def _check(
    qkv: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: Tensor,
    *, padding: Tensor | None = None, query_norm: Tensor | None = None, key_norm: Tensor | None = None,
    window: int = 0, **_: float,
) -> None:  # fmt: skip
    """The kernel trusts its sizes, so an error in them would read past the end."""
    if keys.ndim != 4 or values.shape != keys.shape or qkv.ndim != 2 or cosines.ndim != 2:
        raise ValueError(f"qkv {_of(qkv)}, keys {_of(keys)}, values {_of(values)}, cosines {_of(cosines)}: {_WANTED}")
    batch, key_heads, capacity, size = keys.shape
    rotary, total = cosines.shape[1], qkv.shape[1]
    if size % 8 or not 8 <= size <= MAX_SIZE:
        raise ValueError(f"heads of {size} numbers (allowed: multiples of 8 up to {MAX_SIZE})")
    if not 1 <= batch <= MAX_BATCH:
        raise ValueError(f"{batch} sequences at a time (allowed: 1 to {MAX_BATCH})")
    heads = total // size - 2 * key_heads
    if qkv.shape[0] != batch or total % size or key_heads < 1 or heads < 1 or heads % key_heads:
        raise ValueError(f"qkv {_of(qkv)} does not belong to keys {_of(keys)}: {_WANTED}")
    if sines.shape != cosines.shape or cosines.shape[0] < capacity or rotary > size or rotary % 2:
        raise ValueError(
            f"cosines {_of(cosines)}, sines {_of(sines)} (allowed: [{capacity} or more, an even number up to {size}])"
        )
    if length.shape != (1,) or (padding is not None and padding.shape != (batch,)) or window < 0:
        raise ValueError(f"length {_of(length)}, padding {None if padding is None else _of(padding)}, window {window}")
    if any(norm is not None and norm.shape != (size,) for norm in (query_norm, key_norm)):
        raise ValueError(f"the weights of head norms are not of {size} numbers")
    if keys.dtype != qkv.dtype or values.dtype != qkv.dtype or not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError(f"keys {keys.dtype} and values {values.dtype} must be contiguous and of qkv's {qkv.dtype}")
    floats = [each for each in (cosines, sines, query_norm, key_norm) if each is not None]
    counts = [each for each in (length, padding) if each is not None]
    if any(each.dtype != torch.float32 for each in floats) or any(each.dtype != torch.int64 for each in counts):
        raise ValueError("cosines, sines and norms must be float32, length and padding int64")


_WANTED = "[B, (heads + 2 key_heads) * size] with a cache [B, key_heads, capacity, size] and tables [positions, rotary]"


def _of(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _on_cpu(*tensors: Tensor, **options: Any) -> Tensor:
    _check(*tensors, **options)
    return reference(*tensors, **options)


def _on_cuda(*tensors: Tensor, **options: Any) -> Tensor:
    _check(*tensors, **options)
    run = attend_binding.attend if tensors[0].dtype in DTYPES else reference
    return run(*tensors, **options)


def _shape_only(*tensors: Tensor, **options: Any) -> Tensor:
    _check(*tensors, **options)
    qkv, keys = tensors[0], tensors[3]
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] - 2 * keys.shape[1] * keys.shape[3])


_library = torch.library.Library("awqbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "attend(Tensor qkv, Tensor cosines, Tensor sines, Tensor(a!) keys, Tensor(b!) values, Tensor length, *,"
    " Tensor? padding=None, Tensor? query_norm=None, Tensor? key_norm=None, float eps=0.0, float scale, float cap=0.0,"
    " int window=0) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
_library.impl("attend", _on_cpu, "CPU")  # type: ignore[no-untyped-call]
_library.impl("attend", _on_cuda, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("awqbench::attend", _shape_only, lib=_library)
