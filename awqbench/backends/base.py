"""What a backend can do. It turns token ids into log-probabilities and tokens, and knows no suite.

Standard library and numpy only: a backend's environment may hold nothing else but its engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from awqbench.errors import NotApplicable

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Path = Literal["prefill", "decode"]
Capability = Literal[
    "score", "logprobs", "decode-logprobs", "topk-logprobs", "generate", "stop-texts", "time", "tokenize"
]  # fmt: skip


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
class TopK:
    """The k most likely tokens at successive positions: `ids` int32 [rows, k], `logprobs` float32 [rows, k]."""

    ids: IntArray
    logprobs: FloatArray


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed generation of a batch: seconds to the first token, and the gap before each later step [steps - 1].

    `otherwise`: what decoded this batch, and why, where it was not what the description's `runtime` says.
    """

    ttft_s: float
    gaps_s: list[float]
    otherwise: str | None = None


class Backend(Protocol):
    """One engine with one set of weights, inside a worker process.

    What a backend cannot do it leaves out of its capabilities; the worker then never asks for it. `BackendBase` refuses
    by itself whatever a subclass does not implement.
    """

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """Load the weights. Returns what is true of the loaded engine.

        Options: model_dir (the unquantized model's folder), weights (the folder or file to run, model_dir itself when
        it is the model, "" where weights live elsewhere), dtype, device, threads, batch_size, runtime,
        trust_remote_code, settings (the kind's own options).

        Returns vocab_size, max_positions, dtype (what it computes in), device, kernel (what multiplies), weight_bytes
        (None: unknown), load_s, engine, engine_version, capabilities (of `Capability`), and topk (the largest k) where
        it has "topk-logprobs". More is welcome: it stands in the record.
        """

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """Score each sequence from its start (>= 1), in order, batched as the backend likes."""

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """Full-vocabulary log-probabilities, float32, in chunks [rows, vocab] of bounded size. Row i is
        log p(. | ids[:start + i]) for start + i = start .. len(ids) - 1. `decode` feeds one token at a time through
        the KV cache from `start` on, so that the decode kernels are what is measured."""

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """The k most likely tokens, in chunks of rows as `logprobs` has them, for an engine that tells no more."""

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """Greedy continuations, without the prompt, each ended by (and without) a stop id or by max_new_tokens."""

    def generate_until(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], stop_texts: list[str]
    ) -> list[list[int]]:
        """As `generate`, and a continuation ends with the token that completes the first of `stop_texts` in its text.

        Whoever asks cuts the text there; this saves it from waiting for what comes after.
        """

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Generate exactly new_tokens greedily for equally long prompts, ignoring end-of-sequence, and time it."""

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """Ids by the engine's own tokenizer; with `special`, what it adds to a text by default (BOS) is there."""

    def memory(self) -> dict[str, int]:
        """Bytes by name: host_peak, host_now, and on a GPU device_allocated_peak, device_reserved_peak."""

    def unload(self) -> None:
        """Give the weights' memory back; the process ends soon after."""


class BackendBase:
    """A backend that can do nothing yet: a subclass implements what its engine offers and says so when it loads."""

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`."""
        raise self._lacks("load")

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """See `Backend.score`."""
        raise self._lacks("score")

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """See `Backend.logprobs`."""
        raise self._lacks("logprobs")

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Backend.topk_logprobs`."""
        raise self._lacks("topk_logprobs")

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """See `Backend.generate`."""
        raise self._lacks("generate")

    def generate_until(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], stop_texts: list[str]
    ) -> list[list[int]]:
        """See `Backend.generate_until`."""
        raise self._lacks("generate_until")

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """See `Backend.time`."""
        raise self._lacks("time")

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """See `Backend.tokenize`."""
        raise self._lacks("tokenize")

    def memory(self) -> dict[str, int]:
        """See `Backend.memory`: this process's resident set."""
        return resident_set()

    def unload(self) -> None:
        """See `Backend.unload`. The end of the process is enough for most engines."""

    def _lacks(self, what: str) -> NotApplicable:
        return NotApplicable(f"{type(self).__name__} has no {what}")


def resident_set() -> dict[str, int]:
    """host_peak and host_now of this process, bytes; empty where /proc is missing.

    The peak is VmHWM: getrusage's figure would include the parent's before exec.
    """
    figures = {}
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith(("VmHWM:", "VmRSS:")):
                figures["host_peak" if line.startswith("VmHWM") else "host_now"] = int(line.split()[1]) * 1024
    return figures
