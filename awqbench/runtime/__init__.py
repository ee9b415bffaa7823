"""Decoding a token: by a native step or a CUDA graph where it is proved to fit, through transformers otherwise."""

from awqbench.runtime.attach import RUNTIMES, attach
from awqbench.runtime.decoding import Decoding, TransformersDecoding, carried_state

__all__ = ["RUNTIMES", "Decoding", "TransformersDecoding", "attach", "carried_state"]
