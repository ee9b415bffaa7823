"""The least a linear must move and do, and how long that takes at a rate."""

from __future__ import annotations

from awqbench.kernelbench.problem import Shape

HALF = 2  # bytes of a scale, an activation, a dense weight


def packed_bytes(shape: Shape, m: int) -> float:
    """Codes at half a byte, a float16 scale and a 4-bit zero point per group, x and y once."""
    weights = shape.n * shape.k
    return weights / 2 + weights / shape.group * (HALF + 0.5) + activation_bytes(shape, m)


def dense_bytes(shape: Shape, m: int) -> float:
    """The same with 16-bit weights."""
    return shape.n * shape.k * HALF + activation_bytes(shape, m)


def activation_bytes(shape: Shape, m: int) -> float:
    """x [m, k] read and y [m, n] written once."""
    return HALF * m * (shape.n + shape.k)


def operations(shape: Shape, m: int) -> float:
    """Floating-point operations of the product: a multiplication and an addition count as two."""
    return 2.0 * m * shape.n * shape.k


def microseconds(amount: float, per_second: float) -> float:
    """Time for an amount at a rate."""
    return amount / per_second * 1e6


def memory_share(shape: Shape, m: int, us: float, bandwidth: float) -> float:
    """What part of a time the packed bytes alone would take at `bandwidth` (bytes per second): 1 is the limit."""
    return microseconds(packed_bytes(shape, m), bandwidth) / us
