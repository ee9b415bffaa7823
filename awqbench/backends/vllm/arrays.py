"""vLLM's prompt log-probabilities as the arrays that they are inside the engine.

Its public answer is a Python object for each token of the vocabulary at each position, about 110 bytes each: 2.8 GB for
512 positions of a vocabulary of 49,152. The arrays hold 8 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awqbench.backends.base import FloatArray
from awqbench.errors import BackendUnavailable


@dataclass(frozen=True, slots=True)
class PromptArrays:
    """`ids` int32 and `logprobs` float32, both [positions, 1 + k]: the text's own token, then the k likeliest."""

    ids: NDArray[np.int32]
    logprobs: FloatArray


def keep_arrays() -> None:
    """Have vLLM leave prompt log-probabilities as `PromptArrays` in its answers, in this process.

    Raises BackendUnavailable for a vLLM that makes them elsewhere.
    """
    from vllm.v1.engine.logprobs import LogprobsProcessor

    if not hasattr(LogprobsProcessor, "_update_prompt_logprobs"):
        raise BackendUnavailable("this vLLM hands out prompt log-probabilities in a new way: awqbench env create vllm")
    LogprobsProcessor._update_prompt_logprobs = _keep


def _keep(self: Any, tensors: Any) -> None:
    ids, logprobs, *_ = tensors
    self.prompt_logprobs.append(PromptArrays(np.asarray(ids), np.asarray(logprobs)))


def joined(found: list[PromptArrays | None]) -> PromptArrays:
    """One answer's arrays; the first entry stands for the first token, which nothing predicts."""
    parts = [part for part in found if part is not None]
    if len(parts) == 1:
        return parts[0]
    return PromptArrays(np.concatenate([p.ids for p in parts]), np.concatenate([p.logprobs for p in parts]))


def by_token(found: PromptArrays, low: int, high: int, vocab_size: int) -> FloatArray:
    """Rows low .. high as [rows, vocab_size] in the order of token ids; what was not given is minus infinity.

    Their mass is made 1: torch's log_softmax on a CPU leaves it off by up to 1e-5, a floor under every divergence.
    """
    rows = np.full((high - low, vocab_size), -np.inf, np.float32)
    np.put_along_axis(rows, found.ids[low:high].astype(np.int64), found.logprobs[low:high], axis=1)
    mass = np.exp(rows).sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(rows - np.log(mass), np.float32)
