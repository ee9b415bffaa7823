"""A token's step through a described model made of few launches: five a layer where all its linears are packed.

A layer is [norm] qkv, attention, output [+ residual], [norm] gate and up, [gate] down [+ residual]: `fused_linear` four
times, `attend` once. What `fused_linear` does not take (a linear that is not packed, a norm behind a branch, a scaled
residual) is made of torch's operations around it, so that a mixed checkpoint pays for those layers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from awqbench.ops.attend import attend
from awqbench.ops.cuda import MAX_ROWS
from awqbench.ops.cuda_binding import DTYPES
from awqbench.ops.linear import QuantizedLinear
from awqbench.runtime.describe import Description, LayerParts, Norm, describe
from awqbench.runtime.probe import NotDescribed, rotary_tables
from awqbench.runtime.product import Product, RmsNorm, is_packed
from awqbench.runtime.sight import windows

Tables = dict[tuple[str, ...], tuple[Tensor, Tensor]]  # cosines and sines, float32 [positions, rotary], by their name


def wanted(model: nn.Module) -> bool:
    """Whether a model has what this step is for: packed linears of the kernel `cuda`, computed in 16 bits."""
    return model.dtype in DTYPES and any(map(is_packed, model.modules()))


def takes(linear: Any, name: str) -> None:
    """Raise NotDescribed for a linear whose product this step can't make."""
    if not isinstance(linear, QuantizedLinear) and type(linear) is not nn.Linear:
        raise NotDescribed(f"{name} is a {type(linear).__name__} and no linear layer")


class FusedStep:
    """One token for each sequence of a batch: ids and a static cache in, logits out."""

    def __init__(self, model: Any) -> None:
        """Raises NotDescribed for a model that is not Llama-like. Linears that are merged later stay apart here."""
        found = describe(model, takes)
        self._found, self._factors, dtype = found, found.factors, model.dtype
        self._layers = [
            _Layer(parts, found, window, dtype)
            for parts, window in zip(found.layers, windows(model, found), strict=True)
        ]
        self._head = Product([found.head], dtype, norm=found.last)
        self._tables: Tables = {}

    def unfit(self, batch: int, capacity: int) -> str | None:
        """Why batches of this size in caches of so many positions are not for it; None: they are."""
        if batch > MAX_ROWS:
            return f"{batch} sequences, and the fused step takes {MAX_ROWS}"
        limit = self._found.limit
        return f"a cache of {capacity} positions, and the fused step takes {limit}" if capacity > limit else None

    def tables(self, length: int, device: torch.device) -> Tables:
        """The rotary angles of positions 0 .. length - 1 at least."""
        for angles in {parts.angles for parts in self._found.layers}:
            if angles not in self._tables or len(self._tables[angles][0]) < length:
                cosines, sines = rotary_tables(self._found.rotary, length, angles)
                self._tables[angles] = cosines.to(device), sines.to(device)
        return dict(self._tables)

    def __call__(
        self, ids: Tensor, stores: Sequence[Any], length: Tensor, padding: Tensor | None, tables: Tables
    ) -> Tensor:
        """Logits [batch, vocabulary] after `ids` int64 [batch], whose keys and values go to place `length` int64 [1] of
        `stores`, a static cache's layers; `padding` int64 [batch] of its first places hold no tokens."""
        factors = self._factors
        x = functional.embedding(ids, self._found.embedding.weight)
        if factors["embedding_scale"] != 1:
            x = x * factors["embedding_scale"]
        for layer, store in zip(self._layers, stores, strict=True):
            x = layer(x, store, length, padding, tables)
        logits = self._head(x)
        if factors["logit_divisor"] != 1:
            logits = logits / factors["logit_divisor"]
        if factors["logit_cap"]:
            logits = torch.tanh(logits / factors["logit_cap"]) * factors["logit_cap"]
        return logits


class _Layer:
    """The residual stream [batch, hidden] through one layer, its keys and values into a static cache's layer."""

    def __init__(self, parts: LayerParts, found: Description, window: int, dtype: torch.dtype) -> None:
        norms = parts.norms
        self._qkv = Product(parts.qkv, dtype, norm=norms.get("before_attention"))
        self._out = Product([parts.out], dtype)
        self._gate_up = Product(parts.gate_up, dtype, norm=norms.get("before_mlp"))
        self._down = Product([parts.down], dtype, gate=found.activation)
        self._after = [RmsNorm.of(norms.get(role), dtype) for role in ("after_attention", "after_mlp")]
        self._scale, self.angles = found.factors["residual_scale"], parts.angles
        self._heads = _HeadNorms(norms["query"], norms["key"], found.sizes, dtype)
        self._scores: dict[str, Any] = {
            **self._heads.taken_in,
            "scale": found.factors["score_scale"],
            "cap": found.factors["score_cap"],
            "window": window,
        }

    def __call__(self, x: Tensor, store: Any, length: Tensor, padding: Tensor | None, tables: Tables) -> Tensor:
        qkv = self._heads(self._qkv(x))
        cosines, sines = tables[self.angles]
        heads = attend(qkv, cosines, sines, store.keys, store.values, length, padding=padding, **self._scores)
        x = self._add(x, self._out, heads, self._after[0])
        return self._add(x, self._down, self._gate_up(x), self._after[1])

    def _add(self, x: Tensor, product: Product, of: Tensor, norm: RmsNorm | None) -> Tensor:
        if norm is None and self._scale == 1:
            return product(of, residual=x)
        y = product(of)
        return torch.add(x, y if norm is None else norm(y), alpha=self._scale)


class _HeadNorms:
    """Norms of each head are `attend`'s; those of all queries and of all keys as one vector (OLMo 2) are torch's."""

    def __init__(self, query: Norm, key: Norm, sizes: dict[str, int], dtype: torch.dtype) -> None:
        self.taken_in: dict[str, Any] = {}
        self._whole: list[RmsNorm | None] = []
        norms = [norm for norm in (query, key) if norm is not None]
        if all(len(weight) == sizes["head_size"] for weight, _ in norms):
            if len({eps for _, eps in norms}) > 1:
                raise NotDescribed("the norms of queries and keys have different epsilons")
            weights = (None if norm is None else norm[0] for norm in (query, key))
            self.taken_in = dict(zip(("query_norm", "key_norm"), weights, strict=True))
            self.taken_in["eps"] = norms[0][1] if norms else 0.0
        else:
            self._whole = [RmsNorm.of(query, dtype), RmsNorm.of(key, dtype), None]
        heads = sizes["heads"], sizes["key_heads"], sizes["key_heads"]
        self._widths = [count * sizes["head_size"] for count in heads]

    def __call__(self, qkv: Tensor) -> Tensor:
        if not self._whole:
            return qkv
        pairs = zip(torch.split_with_sizes(qkv, self._widths, 1), self._whole, strict=True)
        return torch.cat([part if norm is None else norm(part) for part, norm in pairs], 1)
