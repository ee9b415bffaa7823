"""The native step (kernels/cpu/decode.cpp) bound to one model: one C call a token, weights read where they lie."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from awqbench.ops import cpu
from awqbench.ops.build import library
from awqbench.ops.linear import QuantizedLinear
from awqbench.runtime import structures as c
from awqbench.runtime.decoding import TransformersDecoding
from awqbench.runtime.describe import Description, LayerParts, Norm
from awqbench.runtime.probe import NotDescribed, rotary_tables
from awqbench.runtime.stored import KINDS, as_stored

MAX_BATCH = 16
_CAPACITY_STEP = 64


def takes(linear: Any, name: str) -> None:
    """Raise NotDescribed for a linear that the native step does not multiply by."""
    if isinstance(linear, QuantizedLinear):
        if linear.kernel != "cpu":
            raise NotDescribed(f"{name} runs on the kernel {linear.kernel}")
        if linear.out_features % cpu.ROWS:
            raise NotDescribed(f"{name} has {linear.out_features} outputs, no multiple of {cpu.ROWS}")
    elif type(linear) is not nn.Linear or linear.weight.dtype is not torch.float32:
        raise NotDescribed(f"{name} is a {type(linear).__name__} that is no linear layer in float32")


class NativeModel:
    """A described model in C terms. Holds every tensor that the structures point to.

    `isa` (0 scalar, 1 AVX2, 2 AVX-512) defaults to the best of this processor.
    """

    def __init__(self, description: Description, isa: int | None = None) -> None:
        self.description = description
        self.isa = cpu.best_isa() if isa is None else isa
        self.limit, self.vocabulary = description.sight, description.sizes["vocabulary"]
        self.angles = description.layers[0].angles
        if any(parts.angles != self.angles for parts in description.layers):
            raise NotDescribed("its layers differ in their rotary angles")
        table, head = description.embedding.weight, description.head
        self.embedding = as_stored(table)  # [vocabulary, hidden], in the type it can be held in
        self.head: Any = head  # the same tensor where they are tied
        if getattr(head, "weight", None) is table:
            self.head = self.embedding
        elif isinstance(head, QuantizedLinear):
            takes(head, "the head")
        elif type(head) is nn.Linear and getattr(head, "bias", None) is None:
            self.head = as_stored(head.weight)
        self._held: list[Any] = []
        loaded = library()
        self._step, self._scratch = loaded.awqbench_decode_step, loaded.awqbench_decode_scratch
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._step.argtypes = [pointer] * 4 + [size] + [pointer] * 2 + [ctypes.c_int] * 2
        self._step.restype = None
        self._scratch.argtypes, self._scratch.restype = [pointer, size, size, ctypes.c_int, ctypes.c_int], size
        layers = (c.Layer * len(description.layers))(*map(self._layer, description.layers))
        self._layers = layers
        self.structure = c.Model(
            layers=layers,
            embedding=self._linear(self.embedding),
            head=self._linear(self.head),
            last=self._norm(description.last),
            count=len(layers),
            activation=c.ACTIVATIONS.index(description.activation),
            **description.sizes,
            **description.factors,
        )
        self._tables: tuple[Tensor, Tensor] | None = None

    def unfit(self, batch: int, length: int) -> str | None:
        """Why sequences of these sizes are not for it; None: they are."""
        if batch > MAX_BATCH:
            return f"{batch} sequences, and the native step takes {MAX_BATCH}"
        return f"{length} positions, and the native step takes {self.limit}" if length > self.limit else None

    def begin(self, batch: int, length: int) -> NativeState:
        """Room for `batch` sequences of up to `length` tokens, nothing in it yet."""
        return NativeState(self, batch, min(self.limit, -(-length // _CAPACITY_STEP) * _CAPACITY_STEP))

    def tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines of at least `length` positions."""
        if self._tables is None or self._tables[0].shape[0] < length:
            self._tables = rotary_tables(self.description.rotary, length, self.angles)
        return self._tables

    def _layer(self, parts: LayerParts) -> c.Layer:
        fused = len(parts.gate_up) == 1
        return c.Layer(
            qkv=(c.Linear * 3)(*map(self._linear, parts.qkv)),
            out=self._linear(parts.out),
            gate=self._linear(parts.gate_up[0]),
            up=self._linear(parts.gate_up[-1]),
            down=self._linear(parts.down),
            up_row=self.description.sizes["inner"] if fused else 0,
            **{role: self._norm(norm) for role, norm in parts.norms.items()},
        )

    def _norm(self, norm: Norm) -> c.Norm:
        return c.Norm() if norm is None else c.Norm(self._pointer(norm[0]), norm[0].numel(), norm[1])

    def _linear(self, of: Tensor | nn.Module) -> c.Linear:
        if isinstance(of, Tensor):
            return c.Linear(self._pointer(of), None, None, None, *of.shape, 0, KINDS[of.dtype])
        bias = getattr(of, "bias", None)
        offset = None if bias is None else self._pointer(bias.detach().float())
        if isinstance(of, QuantizedLinear):
            packed = self._pointer(of.codes), self._pointer(of.get_buffer("scale_bits")), self._pointer(of.zeros)
            return c.Linear(*packed, offset, of.out_features, of.in_features, of.group_size, of.width)
        weight = of.get_parameter("weight").detach()
        return c.Linear(self._pointer(weight), None, None, offset, *weight.shape, 0, KINDS[weight.dtype])

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._held.append(tensor)
        return tensor.data_ptr()


class NativeState:
    """Keys and values of a batch of sequences [layers, batch, key heads, capacity, head size], float32.

    `lengths` int64 [batch]: how many tokens of each are there.
    """

    def __init__(self, native: NativeModel, batch: int, capacity: int) -> None:
        sizes = native.description.sizes
        shape = len(native.description.layers), batch, sizes["key_heads"], capacity, sizes["head_size"]
        self.keys, self.values = torch.empty(shape), torch.empty(shape)
        self.lengths, self.capacity = torch.zeros(batch, dtype=torch.long), capacity
        self._native = native
        self._tables = native.tables(capacity)
        self._scratch = torch.empty(0)
        self._bind()

    def _bind(self) -> None:
        tables = (table.data_ptr() for table in self._tables)
        self._logits = torch.empty(len(self.lengths), self._native.vocabulary)
        self._cache = c.Cache(self.keys.data_ptr(), self.values.data_ptr(), *tables, self.capacity)

    def take(self, past: Any, padding: Tensor | None = None) -> None:
        """Copy what a transformers cache holds, each row without its padding on the left.

        Raises ValueError unless the cache holds every position of every layer.
        """
        length = past.get_seq_length()
        if {layer.keys.shape[2] for layer in past.layers} != {length} or len(past.layers) != self.keys.shape[0]:
            raise ValueError("the cache does not hold the keys and values of every position and layer")
        skipped = torch.zeros_like(self.lengths) if padding is None else padding
        self.lengths = length - skipped
        for number, layer in enumerate(past.layers):
            for row, first in enumerate(skipped.tolist()):
                self.keys[number, row, :, : length - first] = layer.keys[row, :, first:]
                self.values[number, row, :, : length - first] = layer.values[row, :, first:]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone."""
        self.keys, self.values, self.lengths = self.keys[:, rows], self.values[:, rows], self.lengths[rows]
        self._bind()

    def step(self, tokens: Tensor) -> Tensor:
        """One more token id for each sequence, int64 [batch]; logits float32 [batch, vocabulary], overwritten by the
        next step. Raises IndexError for ids out of range and for a full cache."""
        native, batch, threads = self._native, self._logits.shape[0], torch.get_num_threads()
        tokens = tokens.contiguous()
        low, high = torch.aminmax(tokens)
        rows = native.embedding.shape[0]
        if low < 0 or high >= rows or tokens.shape != (batch,) or tokens.dtype is not torch.long:
            raise IndexError(f"tokens {tokens.tolist()} (allowed: {batch} ids below {rows})")
        if int(self.lengths.max()) >= self.capacity:
            raise IndexError(f"the cache holds {self.capacity} tokens and is full")
        needed = native._scratch(ctypes.addressof(native.structure), batch, self.capacity, threads, native.isa)
        if self._scratch.numel() < needed:
            self._scratch = torch.empty(needed)
        native._step(
            ctypes.addressof(native.structure), ctypes.addressof(self._cache), tokens.data_ptr(),
            self.lengths.data_ptr(), batch, self._logits.data_ptr(), self._scratch.data_ptr(), threads, native.isa,
        )  # fmt: skip
        self.lengths += 1
        return self._logits


class NativeDecoding:
    """The prompt through transformers, whose cache is copied; then one native step a token."""

    def __init__(self, model: Any, native: NativeModel, batch: int, length: int) -> None:
        self._model, self._state, self._begun = model, native.begin(batch, length), False

    def feed(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """See `Decoding.feed`."""
        if not self._begun:
            self._begun = True
            prefill = TransformersDecoding(self._model, torch.device("cpu"))
            logits = prefill.feed(ids, padding)
            self._state.take(prefill.state["past_key_values"], padding)
            return logits
        for column in ids.T:
            logits = self._state.step(column)
        return logits

    def keep(self, rows: list[int]) -> bool:
        """See `Decoding.keep`."""
        self._state.keep(rows)
        return True
