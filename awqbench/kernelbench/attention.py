"""Attention of one decoding step, as the checks and timings ask for it: problems, float64, and what runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from awqbench.ops import attend_binding
from awqbench.ops.attend import attend
from awqbench.ops.cuda_binding import DTYPES as KERNEL_DTYPES

MODELS = {"llama3-8b": (32, 8, 128), "llama3-70b": (64, 8, 128)}  # query heads, key heads, numbers in a head
EPS = 0.25  # large, so that one left out shows


@dataclass(frozen=True)
class Heads:
    """`batch` sequences; `context` places of the cache hold tokens before the new one, `padding` of them of the first
    sequence none; `norms`: RMS norms of heads."""

    heads: int
    key_heads: int
    size: int
    batch: int = 1
    context: int = 100
    capacity: int = 128
    rotary: int | None = None  # all of a head
    padding: int = 0
    window: int = 0
    cap: float = 0.0
    norms: bool = False

    def __str__(self) -> str:
        more = [f"{name} {value:g}" for name in ("padding", "window", "cap") if (value := getattr(self, name))]
        more += [f"rotary {self.rotary}"] if self.rotary is not None else []
        more += ["norms"] if self.norms else []
        text = f"{self.heads}/{self.key_heads} heads of {self.size}, batch {self.batch}, {self.context}/{self.capacity}"
        return ", ".join([text, *more])

    @property
    def bytes(self) -> int:
        """Keys and values seen, read once: the least that a step must move."""
        seen = min(self.context + 1, self.window or self.context + 1)
        return 4 * self.batch * self.key_heads * self.size * seen


@dataclass(frozen=True)
class Step:
    """What `attend` takes. Places that must not be seen, and rows of other positions, are NaN."""

    sizes: Heads
    qkv: Tensor
    cosines: Tensor
    sines: Tensor
    keys: Tensor
    values: Tensor
    length: Tensor
    padding: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None

    @property
    def scale(self) -> float:
        """Of scores."""
        return float(self.sizes.size**-0.5)

    def run(self, overlap: bool | None = None) -> Tensor:
        """The operator; on a GPU, with `overlap` given, the kernel with or without an early start."""
        tensors = self.qkv, self.cosines, self.sines, self.keys, self.values, self.length
        options: dict[str, Any] = {
            "padding": self.padding, "query_norm": self.query_norm, "key_norm": self.key_norm, "scale": self.scale,
            "eps": EPS if self.sizes.norms else 0.0, "cap": self.sizes.cap, "window": self.sizes.window,
        }  # fmt: skip
        if overlap is None or not self.qkv.is_cuda or self.qkv.dtype not in KERNEL_DTYPES:
            return attend(*tensors, **options)
        return attend_binding.attend(*tensors, **options, overlap=overlap)

    def copy(self) -> Step:
        """The same with a cache of its own."""
        return replace(self, keys=self.keys.clone(), values=self.values.clone())


def random_step(
    sizes: Heads, dtype: torch.dtype, device: torch.device, seed: int = 0, unseen: float = float("nan")
) -> Step:
    """A random cache and token, the same for the same arguments; `unseen` stands where nothing may be read."""
    draw = torch.Generator(device).manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, device=device)

    context, capacity, batch = sizes.context, sizes.capacity, sizes.batch
    padding = torch.zeros(batch, dtype=torch.int64, device=device)
    padding[0] = sizes.padding
    cache = []
    for _ in range(2):
        each = numbers(batch, sizes.key_heads, capacity, sizes.size).to(dtype)
        each[:, :, context:] = unseen
        each[0, :, : sizes.padding] = unseen
        if sizes.window:
            each[:, :, : max(0, context + 1 - sizes.window)] = unseen
        cache.append(each)
    rotary = sizes.size if sizes.rotary is None else sizes.rotary
    angles = torch.arange(capacity, device=device)[:, None] * 100.0 ** (
        -2 * (torch.arange(rotary, device=device) % max(1, rotary // 2)) / max(1, rotary)
    )
    unused = torch.ones(capacity, 1, dtype=torch.bool, device=device)
    unused[context - padding] = False
    tables = [table.masked_fill(unused, unseen) for table in (angles.cos(), angles.sin())]
    norms = [1 + numbers(sizes.size) / 4 if sizes.norms else None for _ in range(2)]
    qkv = numbers(batch, (sizes.heads + 2 * sizes.key_heads) * sizes.size).to(dtype)
    length = torch.tensor([context], device=device)
    (cosines, sines), (keys, values), (query_norm, key_norm) = tables, cache, norms
    shown = padding if sizes.padding else None
    return Step(sizes, qkv, cosines, sines, keys, values, length, shown, query_norm, key_norm)


@dataclass(frozen=True)
class Expected:
    """In float64: the result [batch, heads * size] and the new key [batch, key_heads, size] before it is rounded."""

    y: Tensor
    key: Tensor


def expected(step: Step) -> Expected:
    """float64 throughout, but that queries and keys are rounded where the kernel rounds them."""
    sizes, dtype = step.sizes, step.qkv.dtype
    heads, key_heads, size, context = sizes.heads, sizes.key_heads, sizes.size, sizes.context
    token = step.qkv.view(sizes.batch, -1, size).double()
    padding = torch.zeros_like(step.length).expand(sizes.batch) if step.padding is None else step.padding
    cos, sin = (table[context - padding][:, None].double() for table in (step.cosines, step.sines))
    q = _prepared(token[:, :heads], step.query_norm, cos, sin).to(dtype).double()
    new = _prepared(token[:, heads : heads + key_heads], step.key_norm, cos, sin)
    y = torch.empty(sizes.batch, heads, size, dtype=torch.float64, device=q.device)
    for row in range(sizes.batch):
        first = max(int(padding[row]), context + 1 - sizes.window if sizes.window else 0)
        keys = torch.cat([step.keys[row, :, first:context].double(), new[row, :, None].to(dtype).double()], dim=1)
        values = torch.cat([step.values[row, :, first:context].double(), token[row, heads + key_heads :, None]], dim=1)
        scores = q[row].view(key_heads, -1, size) @ keys.transpose(1, 2) * step.scale
        if sizes.cap:
            scores = sizes.cap * (scores / sizes.cap).tanh()
        y[row] = (scores.softmax(-1) @ values).view(heads, size)
    return Expected(y.flatten(1), new)


def _prepared(x: Tensor, norm: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
    if norm is not None:
        x = x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * norm.double()
    return _turned(x, cos, sin)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotary = cos.shape[-1]
    low, high = x[..., :rotary].chunk(2, dim=-1)
    return torch.cat([x[..., :rotary] * cos + torch.cat([-high, low], dim=-1) * sin, x[..., rotary:]], dim=-1)


class Contender(ABC):
    """What is timed. `whole`: it does all that the kernel does."""

    name: str
    whole = True

    @abstractmethod
    def run(self, step: Step) -> Tensor:
        """[batch, heads * size] on the current stream."""


class Ours(Contender):
    """The kernel."""

    def __init__(self, name: str, overlap: bool) -> None:
        self.name, self._overlap = name, overlap

    def run(self, step: Step) -> Tensor:
        """See Contender."""
        return step.run(self._overlap)


class Torch(Contender):
    """What a captured step of transformers runs: split, rotary, two index_copy_, attention under a mask. `repeat`: keys
    and values are repeated for grouped heads, as transformers 5.17 does, else torch is told of the groups."""

    def __init__(self, name: str, repeat: bool) -> None:
        self.name, self._repeat = name, repeat
        self._masks: dict[tuple[int, int, torch.dtype], Tensor] = {}

    def run(self, step: Step) -> Tensor:
        """See Contender."""
        sizes, qkv, length = step.sizes, step.qkv, step.length
        group, dtype = sizes.heads // sizes.key_heads, qkv.dtype
        counts = [sizes.heads, sizes.key_heads, sizes.key_heads]
        q, k, v = torch.split(qkv.view(sizes.batch, -1, sizes.size), counts, dim=1)
        cos, sin = step.cosines[sizes.context].to(dtype), step.sines[sizes.context].to(dtype)
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        step.keys.index_copy_(2, length, k[:, :, None])
        step.values.index_copy_(2, length, v[:, :, None])
        keys, values = step.keys, step.values
        if self._repeat and group > 1:
            keys, values = (each[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2) for each in (keys, values))
        y = scaled_dot_product_attention(
            q[:, :, None], keys, values, self._mask(step), scale=step.scale, enable_gqa=not self._repeat
        )
        return y.transpose(1, 2).reshape(sizes.batch, -1)

    def _mask(self, step: Step) -> Tensor:
        """Additive, the same in all layers: it is made once a token."""
        key = step.sizes.context, step.sizes.capacity, step.qkv.dtype
        if key not in self._masks:
            mask = torch.full((1, 1, 1, step.sizes.capacity), torch.finfo(step.qkv.dtype).min, device=step.qkv.device)
            mask[..., : step.sizes.context + 1] = 0
            self._masks[key] = mask.to(step.qkv.dtype)
        return self._masks[key]


class Alone(Contender):
    """torch's scaled_dot_product_attention over the places seen and nothing else: no rotary, no write, no mask."""

    name, whole = "sdpa alone", False

    def run(self, step: Step) -> Tensor:
        """See Contender."""
        sizes = step.sizes
        q = step.qkv.view(sizes.batch, -1, sizes.size)[:, : sizes.heads, None]
        keys, values = (each[:, :, : sizes.context + 1] for each in (step.keys, step.values))
        y = scaled_dot_product_attention(q, keys, values, scale=step.scale, enable_gqa=sizes.heads != sizes.key_heads)
        return y.transpose(1, 2).reshape(sizes.batch, -1)


def contenders() -> list[Contender]:
    """Ours with and without an early start, and what it replaces."""
    return [
        Ours("attend", overlap=True),
        Ours("attend/plain", overlap=False),
        Torch("torch", repeat=True),
        Torch("torch-gqa", repeat=False),
        Alone(),
    ]
