"""The packed weights of several linears that read the same tensor as one weight: one product, handed out in parts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from awqbench.ops import cuda, cuda_layout
from awqbench.ops.cuda_binding import current_stream

if TYPE_CHECKING:
    from awqbench.ops.linear import QuantizedLinear

Held = dict[str, Tensor | None]  # tiles, steps and bias, as `QuantizedLinear` holds them


@dataclass(frozen=True, slots=True)
class _Product:
    """All outputs for one input, until each part has had its own."""

    source: weakref.ref[Tensor]
    state: tuple[Any, ...]
    rows: Tensor
    waiting: frozenset[int]


class SharedWeight:
    """Packed rows of several linears of the kernel `cuda`, one after another, each rounded up to whole row tiles.

    The linears keep their buffers, as views of this memory, so each still computes, moves and unpacks by itself. The
    first to be called multiplies all rows; another that is given the very same tensor, unchanged, on the same stream,
    gets a view of that product [..., its width]; each once, since a view may be written to.
    """

    def __init__(self, parts: Sequence[QuantizedLinear]) -> None:
        """`parts`: at least two, which agree in `scheme`; they are changed to share this memory."""
        if len(parts) < 2 or len({scheme(part) for part in parts}) > 1:
            raise ValueError("only linears of the same packing, inputs, kind of bias and device share a weight")
        self.inputs, self.group_size = parts[0].in_features, parts[0].group_size
        self._widths = [part.out_features for part in parts]
        tiles = [part.get_buffer("tiles") for part in parts]
        self._begins = [0, *accumulate(len(tile) for tile in tiles)]  # in row tiles
        biases = [_padded(part.bias, part.out_features) for part in parts if part.bias is not None]
        self._whole: Held = {
            "tiles": torch.cat(tiles),
            "steps": torch.cat([part.get_buffer("steps") for part in parts]),
            "bias": torch.cat(biases) if biases else None,
        }
        if tiles[0].is_cuda:
            cuda.reserve(tiles[0].device, self.out_features, self.inputs, self.group_size)
        self._product: _Product | None = None
        self._cut()
        for index, part in enumerate(parts):
            part.share(self, index)

    @property
    def out_features(self) -> int:
        """Rows of the whole weight, padding included."""
        return self._begins[-1] * cuda_layout.ROWS

    def is_of(self, parts: Sequence[QuantizedLinear]) -> bool:
        """Whether these linears, in this order, are all that share this weight, and still hold their parts of it."""
        return len(parts) == len(self._views) and all(
            part.shared is self and part.part == index and part.get_buffer("tiles") is view["tiles"]
            for index, (part, view) in enumerate(zip(parts, self._views, strict=True))
        )

    def whole(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tiles, steps and bias of all rows, padding included."""
        tiles, steps, bias = (self._whole[name] for name in ("tiles", "steps", "bias"))
        assert tiles is not None
        assert steps is not None
        return tiles, steps, bias

    def columns(self) -> Tensor:
        """Which rows of the whole weight are no padding, int64, on its device."""
        begins = [begin * cuda_layout.ROWS for begin in self._begins]
        numbers = [range(begin, begin + width) for begin, width in zip(begins, self._widths, strict=False)]
        return torch.tensor([*chain(*numbers)], device=self.whole()[0].device)

    def held(self, index: int) -> Held:
        """A part's own tiles, steps and bias: views."""
        return self._views[index]

    def apply(self, convert: Callable[[Tensor], Tensor]) -> None:
        """What `Module._apply` does. Every part calls it, so `convert` must be one that does nothing the second time,
        as moving and casting are."""
        converted = {name: None if tensor is None else convert(tensor) for name, tensor in self._whole.items()}
        if any(converted[name] is not tensor for name, tensor in self._whole.items()):
            self._whole, self._product = converted, None
            self._cut()

    def rows(self, index: int, x: Tensor, held: Held) -> Tensor | None:
        """The outputs of part `index` for x [..., inputs], or None where it has to compute them by itself."""
        if torch.compiler.is_compiling() or x.is_inference():  # nothing would tell that x was written to
            return None
        if held["tiles"] is not self._views[index]["tiles"]:  # the part has other weights now
            return None
        found, state = self._product, _state(x)
        if found is not None and found.source() is x and found.state == state:
            if index not in found.waiting:  # its view may have been written to
                return None
            waiting = found.waiting - {index}
            self._product = replace(found, waiting=waiting) if waiting else None
            return self._part(found.rows, index)
        tiles, steps = self._whole["tiles"], self._whole["steps"]
        if tiles is None or tiles.device != x.device:
            return None
        whole: Tensor = cuda.w4a16_gemm(x, tiles, steps, self._whole["bias"], self.out_features, self.group_size)
        waiting = frozenset(range(len(self._widths))) - {index}
        self._product = _Product(weakref.ref(x, self._forget), state, whole, waiting)
        return self._part(whole, index)

    def _part(self, whole: Tensor, index: int) -> Tensor:
        begin = self._begins[index] * cuda_layout.ROWS
        return whole[..., begin : begin + self._widths[index]]

    def _forget(self, source: weakref.ref[Tensor]) -> None:
        """Nobody can ask for the product of a tensor that is gone."""
        if self._product is not None and self._product.source is source:
            self._product = None

    def _cut(self) -> None:
        tiles, steps, bias = self.whole()
        self._views: list[Held] = []
        for begin, end, width in zip(self._begins, self._begins[1:], self._widths, strict=False):
            first = begin * cuda_layout.ROWS
            offset = None if bias is None else bias[first : first + width]
            self._views.append({"tiles": tiles[begin:end], "steps": steps[begin:end], "bias": offset})

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the product under way."""
        return self.__dict__ | {"_product": None}


def scheme(part: QuantizedLinear) -> tuple[Any, ...]:
    """What linears must agree in to share a weight."""
    bias = None if part.bias is None else part.bias.dtype
    return part.kernel, part.in_features, part.group_size, part.bits, bias, part.get_buffer("tiles").device


def _padded(bias: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(bias, (0, -width % cuda_layout.ROWS))


def _state(x: Tensor) -> tuple[Any, ...]:
    """What must not have changed for a product of x to be still its own: contents, and who executes it when.

    A product made before a CUDA graph is captured is not part of the graph.
    """
    if not x.is_cuda:
        return (x._version,)
    return x._version, current_stream(x.get_device()), torch.cuda.is_current_stream_capturing()
