"""What a backend can do. It turns token ids into log-probabilities and tokens, and knows no suite.

Standard library and numpy only: a backend's environment may hold nothing else but its engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Path = Literal["prefill", "decode"]
Capability = Literal["score", "logprobs", "decode-logprobs", "generate", "time"]


@dataclass(frozen=True, slots=True)
class Scored:
    """The log-probabilities of one sequence's own tokens.

    For a sequence of n ids scored from `start`: `logprobs` float32 [n - start] holds log p(ids[t] | ids[:t]) for
    t = start .. n-1, and `argmax` int32 [n - start] the most likely token at each of these positions.
    """

    logprobs: FloatArray
    argmax: IntArray

    @property
    def nll(self) -> float:
        """Summed negative log-likelihood, nats."""
        return float(-self.logprobs.sum(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed generation of a batch: seconds to the first token, and the gap before each later step [steps - 1]."""

    ttft_s: float
    gaps_s: list[float]


class Backend(Protocol):
    """One engine with one set of weights, inside a worker process."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """Load the weights. Returns what is true of the loaded engine: vocab_size, max_positions, dtype, device,
        kernel, weight_bytes, load_s, capabilities."""

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """Score each sequence from its start (>= 1), in order, batched as the backend likes."""

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """Full-vocabulary log-probabilities, float32, in chunks [rows, vocab] of bounded size. Row i is
        log p(. | ids[:start + i]) for start + i = start .. len(ids) - 1. `decode` feeds one token at a time through
        the KV cache from `start` on, so that the decode kernels are what is measured."""

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """Greedy continuations, without the prompt, each ended by (and without) a stop id or by max_new_tokens."""

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Generate exactly new_tokens greedily for equally long prompts, ignoring end-of-sequence, and time it."""

    def memory(self) -> dict[str, int]:
        """Bytes by name: host_peak, host_now, and on a GPU device_allocated_peak, device_reserved_peak."""
