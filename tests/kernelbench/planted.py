"""An implementation in plain torch that is right, and ways in which a kernel may be wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from awqbench.kernelbench.implementation import Implementation
from awqbench.kernelbench.reference import dense
from awqbench.quantization.tensor import QuantizedTensor


class Faithful(Implementation):
    """Two halves of k, each a partial sum in the workspace, added in one order: as a split kernel works."""

    name = "faithful"
    raw_rows = 64

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        return {"weights": weights, "dense": dense(weights, torch.float32), "bias": bias}

    def unpack(self, packed: Any) -> QuantizedTensor | None:
        return packed["weights"]

    def workspace_bytes(self, packed: Any, m: int) -> int:
        return 2 * m * packed["dense"].shape[0] * 4

    def run(self, packed: Any, x: Tensor) -> Tensor:
        y = x.new_empty(x.shape[0], packed["dense"].shape[0])
        self.run_into(packed, x, y, torch.zeros(self.workspace_bytes(packed, x.shape[0]), dtype=torch.uint8))
        return y

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        weight, bias = packed["dense"], packed["bias"]
        half = weight.shape[1] // 2
        partial = workspace.view(torch.float32).view(2, *y.shape)
        self.store(partial[0], x[:, :half].float() @ weight[:, :half].T)
        self.store(partial[1], x[:, half:].float() @ weight[:, half:].T)
        total = partial[0] + partial[1]
        self.write(y, (total if bias is None else total + bias.float()).to(y.dtype))

    def store(self, partial: Tensor, value: Tensor) -> None:
        partial.copy_(value)

    def write(self, y: Tensor, value: Tensor) -> None:
        y.copy_(value)


class WrongNibbleOrder(Faithful):
    """Even and odd columns exchanged."""

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        swapped = weights.codes.view(weights.codes.shape[0], -1, 2).flip(2).reshape(weights.codes.shape)
        return {**super().pack(replace(weights, codes=swapped), bias, dtype), "weights": weights}


class StaleZeroPoints(Faithful):
    """Of two groups in a tile of 64, the second uses the first's zero point (sglang issue 37759)."""

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        zeros = weights.zeros.clone()
        if weights.group_size == 32:
            zeros[:, 1::2] = zeros[:, ::2][:, : zeros[:, 1::2].shape[1]]
        return {**super().pack(replace(weights, zeros=zeros), bias, dtype), "weights": weights}


class UnwrittenTail(Faithful):
    """The last columns, past a multiple of 64, are not written."""

    def write(self, y: Tensor, value: Tensor) -> None:
        whole = y.shape[1] // 64 * 64
        y[:, :whole] = value[:, :whole]


class WritesPastTheEnd(Faithful):
    """The tail is stored without a mask: one element behind the output."""

    def write(self, y: Tensor, value: Tensor) -> None:
        y.copy_(value)
        if y.untyped_storage().nbytes() // y.element_size() > y.storage_offset() + y.numel():
            y.as_strided((1,), (1,), y.storage_offset() + y.numel()).fill_(1)


class ReadsPastK(Faithful):
    """The last tile of k reads 64 columns of x whatever is left; the weights there are zero, but NaN times 0 is NaN."""

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        m, k = x.shape
        wide = -(-k // 64) * 64
        last = x.storage_offset() + (m - 1) * x.stride(0) + wide
        if m and wide > k and last <= x.untyped_storage().nbytes() // x.element_size():
            packed = {**packed, "dense": torch.nn.functional.pad(packed["dense"], (0, wide - k))}
            x = x.as_strided((m, wide), (x.stride(0), 1))
        super().run_into(packed, x, y, workspace)


class StalePartialSums(Faithful):
    """Adds to the workspace instead of setting it."""

    def store(self, partial: Tensor, value: Tensor) -> None:
        partial += value


class Nondeterministic(Faithful):
    """As if partial sums came in any order: the last bit moves."""

    def write(self, y: Tensor, value: Tensor) -> None:
        y.copy_(value * (1 + torch.randint(-1, 2, value.shape) * torch.finfo(value.dtype).eps))


class NoBias(Faithful):
    """The bias is forgotten."""

    def pack(self, weights: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype) -> Any:
        return super().pack(weights, None, dtype)


class OnlyEightRows(Faithful):
    """From the ninth row on, the rows of the first eight again."""

    def write(self, y: Tensor, value: Tensor) -> None:
        y.copy_(value[torch.arange(len(value)) % 8])


class IgnoresStrides(Faithful):
    """Takes rows of x to lie k apart."""

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        super().run_into(packed, x.as_strided(x.shape, (x.shape[1], 1)) if x.stride(1) == 1 else x, y, workspace)


class HalfSums(Faithful):
    """Sums in 16 bits, eight columns at a time: less exact than a plain matmul, and within the absolute bounds."""

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        total = torch.zeros_like(y)
        for k in range(0, x.shape[1], 8):
            total += (x[:, k : k + 8].float() @ packed["dense"][:, k : k + 8].T).to(y.dtype)
        self.write(y, total if packed["bias"] is None else total + packed["bias"])


class EmptyIsOneRow(Faithful):
    """No rows give one."""

    def run(self, packed: Any, x: Tensor) -> Tensor:
        return super().run(packed, x) if len(x) else x.new_zeros(1, packed["dense"].shape[0])


class LosesScales(Faithful):
    """What comes back after packing has scales of 8 bits."""

    def unpack(self, packed: Any) -> QuantizedTensor | None:
        weights: QuantizedTensor = packed["weights"]
        return replace(weights, scales=weights.scales.to(torch.bfloat16).half())


class Behind(Faithful):
    """Starts before its input is there: multiplies what the last call was given."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def run(self, packed: Any, x: Tensor) -> Tensor:
        seen = self.last if self.last is not None and self.last.shape == x.shape else x
        self.last = x.clone()
        return super().run(packed, seen)


class RaisesOnWide(Faithful):
    """Cannot be launched from 17 rows on."""

    def run_into(self, packed: Any, x: Tensor, y: Tensor, workspace: Tensor) -> None:
        if len(x) > 16:
            raise RuntimeError("too many resources requested for launch")
        super().run_into(packed, x, y, workspace)


FAULTS: dict[type[Faithful], set[str]] = {
    WrongNibbleOrder: {"one-hot", "exact", "accuracy"},
    StaleZeroPoints: {"one-hot", "exact", "accuracy"},
    UnwrittenTail: {"exact", "accuracy"},
    WritesPastTheEnd: {"exact", "accuracy"},
    ReadsPastK: {"exact", "accuracy"},
    StalePartialSums: {"exact", "accuracy"},
    Nondeterministic: {"repeat"},
    NoBias: {"accuracy"},
    OnlyEightRows: {"one-hot", "accuracy"},
    IgnoresStrides: {"strides", "accuracy"},
    HalfSums: {"accuracy"},
    EmptyIsOneRow: {"empty"},
    LosesScales: {"round-trip"},
    Behind: {"repeat"},
    RaisesOnWide: {"accuracy"},
}
