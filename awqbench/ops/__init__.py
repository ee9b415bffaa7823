"""The W4A16 linear: weights of 4 bits, or up to 8. `QuantizedLinear` is the layer, `select_kernel` the choice."""

from awqbench.ops.linear import QuantizedLinear
from awqbench.ops.select import KERNELS, select_kernel

__all__ = ["KERNELS", "QuantizedLinear", "select_kernel"]
