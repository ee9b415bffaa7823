"""The C structures of kernels/cpu/decode.h: fields, order and types must match it."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p

# How a weight is stored; packed codes by their width, the rest by names of their own.
HALF, BRAIN, FLOAT = 16, 17, 32
ACTIVATIONS = ("silu", "gelu-tanh", "gelu", "relu")


class Linear(ctypes.Structure):
    """One weight [N, K], packed or not."""

    _fields_ = (
        ("weight", c_void_p),
        ("scales", c_void_p),
        ("zeros", c_void_p),
        ("bias", c_void_p),
        ("N", c_int64),
        ("K", c_int64),
        ("group", c_int64),
        ("kind", c_int64),
    )


class Norm(ctypes.Structure):
    """An RMS norm; absent where `weight` is null."""

    _fields_ = (("weight", c_void_p), ("size", c_int64), ("eps", c_double))


class Layer(ctypes.Structure):
    """One decoder layer."""

    _fields_ = (
        ("qkv", Linear * 3),
        ("out", Linear),
        ("gate", Linear),
        ("up", Linear),
        ("down", Linear),
        ("up_row", c_int64),
        ("before_attention", Norm),
        ("after_attention", Norm),
        ("before_mlp", Norm),
        ("after_mlp", Norm),
        ("query", Norm),
        ("key", Norm),
    )


class Model(ctypes.Structure):
    """All that a step reads and never writes."""

    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("embedding", Linear),
        ("head", Linear),
        ("last", Norm),
        *((name, c_int64) for name in ("count", "hidden", "inner", "heads", "key_heads", "head_size", "rotary")),
        ("vocabulary", c_int64),
        ("activation", c_int64),
        *((name, c_double) for name in ("score_scale", "score_cap", "embedding_scale", "residual_scale")),
        ("logit_divisor", c_double),
        ("logit_cap", c_double),
    )


class Cache(ctypes.Structure):
    """Keys, values and the rotary tables of one session."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("capacity", c_int64),
    )
