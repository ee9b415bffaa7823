"""A linear layer that holds packed weights only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from awqbench.errors import UserError
from awqbench.ops import cpu, cuda, cuda_layout, layout, torch_int4
from awqbench.ops.op import w4a16_linear
from awqbench.ops.select import select_kernel
from awqbench.quantization.tensor import QuantizedTensor

if TYPE_CHECKING:
    from awqbench.ops.shared import SharedWeight


ORDERED = "it has an activation order (desc_act), which is not multiplied or exported here (allowed: kind gptqmodel)"


class QuantizedLinear(nn.Module):
    """y = x W^T + b with W as `QuantizedTensor` integers; never a dense W beyond a small scratch.

    x: float [..., in], y: [..., out] in x's type. `kernel` names what runs (`select_kernel`). The memory held is half
    a byte per weight (a byte for codes of more than four bits) and three bytes per group (two and a half for the kernel
    `cuda`, whose sizes are rounded up to 64), beside the bias; scales that float16 cannot hold keep their own type.
    """

    kernel: str
    codes: Tensor
    zeros: Tensor
    bias: Tensor | None
    shared: SharedWeight | None = None  # with others that read the same input; kernel `cuda` only
    part = 0  # which of them this is

    def __init__(
        self,
        quantized: QuantizedTensor,
        bias: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        if quantized.order is not None:
            raise UserError(ORDERED)
        self.out_features, self.in_features = quantized.codes.shape
        self.group_size, self.bits = quantized.group_size, quantized.bits
        self.width = layout.code_width(self.bits)
        self.scale_dtype, scales = quantized.scales.dtype, _narrowest(quantized.scales)
        self.held_dtype = scales.dtype
        self.kernel = select_kernel(
            kernel,
            dtype=dtype,
            device=device,
            out_features=self.out_features,
            group_size=self.group_size,
            bits=self.bits,
            half_scales=scales.dtype == torch.float16,
            nibble_zeros=bool((quantized.zeros <= cuda_layout.LARGEST_ZERO).all()),
            in_features=self.in_features,
        )
        if self.kernel == "cuda":
            # Packed where it will lie: a GPU does it in no time.
            tiles, steps = cuda_layout.pack(
                quantized.codes.to(device), scales.to(device), quantized.zeros.to(device), self.group_size
            )
            held = {"tiles": tiles, "steps": steps}
            if torch.device(device).type == "cuda":
                cuda.reserve(device, self.out_features, self.in_features, self.group_size)
        else:
            # Scales are held as integers, their bit patterns, so that module.to(dtype) cannot round them.
            held = {"zeros": quantized.zeros.contiguous(), "scale_bits": _bits(scales)}
            if self.kernel == "torch-int4":
                codes, kernel_scales = torch_int4.pack(quantized.codes, scales, quantized.zeros)
                held |= {"codes": codes, "kernel_scale_bits": _bits(kernel_scales)}
            else:
                held["codes"] = layout.pack_rows(quantized.codes, self.group_size, self.width)
        for name, tensor in held.items():
            self.register_buffer(name, tensor.to(device))
        self.register_buffer("bias", None if bias is None else bias.detach().to(device=device, dtype=dtype))

    @property
    def scales(self) -> Tensor:
        """[out, groups], as in the checkpoint."""
        if self.kernel == "cuda":
            held = cuda_layout.unpack_steps(self.get_buffer("steps"), self.out_features)[0]
        else:
            held = self.get_buffer("scale_bits").view(self.held_dtype)
        return held.to(self.scale_dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in x's type."""
        held = self._buffers  # module attributes are looked up slowly, and a decoding step makes hundreds of calls
        if self.kernel == "cuda":
            if self.shared is not None and (rows := self.shared.rows(self.part, x, held)) is not None:
                return rows
            multiplied: Tensor = cuda.w4a16_gemm(
                x, held["tiles"], held["steps"], held["bias"], self.out_features, self.group_size
            )
            return multiplied
        if self.kernel == "cpu" and cpu.plain(x):
            codes, scales, zeros, bias = held["codes"], held["scale_bits"], held["zeros"], held["bias"]
            if codes.is_cpu:  # type: ignore[union-attr]
                return cpu.linear(x, codes, scales, zeros, bias, self.group_size, self.width)  # type: ignore[arg-type]
        if self.kernel == "torch-int4":
            scales = held["kernel_scale_bits"].view(torch.bfloat16)  # type: ignore[union-attr]
        else:
            scales = held["scale_bits"].view(self.held_dtype)  # type: ignore[union-attr]
        result: Tensor = w4a16_linear(
            x, held["codes"], scales, held["zeros"], held["bias"], self.group_size, self.width, self.kernel
        )
        return result

    def share(self, shared: SharedWeight | None, part: int = 0) -> None:
        """Hold rows of a weight that several linears have together; None: no longer multiply together with them."""
        self.shared, self.part = shared, part
        if shared is not None:
            self._buffers.update(shared.held(part))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        """Moved or cast one by one, the parts of a shared weight would each hold memory of their own."""
        if self.shared is None:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        else:
            self.shared.apply(fn)
            self._buffers.update(self.shared.held(self.part))
        return self

    def to_quantized(self) -> QuantizedTensor:
        """The integers, scales and zero points that the layer was made from, exact to the bit."""
        if self.kernel == "cuda":
            packed = self.get_buffer("tiles"), self.get_buffer("steps")
            codes, scales, zeros = cuda_layout.unpack(*packed, self.out_features, self.in_features, self.group_size)
            return QuantizedTensor(codes, scales.to(self.scale_dtype), zeros, self.bits, self.group_size)
        if self.kernel == "torch-int4":
            codes = torch_int4.unpack(self.codes, self.in_features, self.group_size)
        else:
            codes = layout.unpack_rows(self.codes, self.in_features, self.group_size, self.width)
        return QuantizedTensor(codes.contiguous(), self.scales, self.zeros, self.bits, self.group_size)

    def extra_repr(self) -> str:
        """Sizes and kernel, for print(model)."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"bits={self.bits}, group_size={self.group_size}, kernel={self.kernel!r}"
        )


def _narrowest(scales: Tensor) -> Tensor:
    """The scales in float16 where that loses nothing, else as they are."""
    half = scales.to(torch.float16)
    return (half if torch.equal(half.to(scales.dtype), scales) else scales).contiguous()


def _bits(numbers: Tensor) -> Tensor:
    """Floating-point numbers as the integers of their bit patterns."""
    return numbers.view(torch.int16 if numbers.element_size() == 2 else torch.int32)
