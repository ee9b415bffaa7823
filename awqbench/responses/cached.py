"""A worker whose answers are looked up before the model is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from awqbench.backends.base import Scored
from awqbench.responses.store import ResponseStore

if TYPE_CHECKING:
    from awqbench.worker.client import Worker


Many = Sequence[Sequence[int]]  # token ids
Progress = Callable[[int, int], None]


class CachedWorker:
    """Scores and generates as its worker does; everything else is the worker's own.

    `identity` names all of the model, the engine and the machine that an answer depends on; a question's key is the
    hash of it, the operation, the token ids and the settings. An answer comes back with the very bytes that were
    measured. `hits` of `asked` answers came from the store.
    """

    def __init__(self, worker: Worker, store: ResponseStore, identity: str) -> None:
        self.worker, self.store, self.identity = worker, store, identity
        self.asked = self.hits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worker, name)

    def score(self, sequences: Many, starts: Sequence[int], progress: Progress | None = None) -> list[Scored]:
        """See `Worker.score`."""
        keys = [self._key("score", ids, [start]) for ids, start in zip(sequences, starts, strict=True)]

        def measure(places: list[int], known: int) -> list[bytes]:
            shown = (lambda done, _: progress(known + done, len(keys))) if progress else None
            answers = self.worker.score([sequences[p] for p in places], [starts[p] for p in places], shown)
            return [_pack_scored(answer) for answer in answers]

        return [_unpack_scored(answer) for answer in self._answers(keys, measure, _finite)]

    def generate(
        self, prompts: Many, max_new_tokens: int, stop_ids: Sequence[int], stop_texts: Sequence[str] = ()
    ) -> list[list[int]]:
        """See `Worker.generate`."""
        op = "/".join(["generate", *sorted(map(repr, stop_texts))])
        keys = [self._key(op, prompt, [max_new_tokens, *sorted(stop_ids)]) for prompt in prompts]

        def measure(places: list[int], known: int) -> list[bytes]:
            answers = self.worker.generate([prompts[p] for p in places], max_new_tokens, stop_ids, stop_texts)
            return [np.asarray(answer, "<i4").tobytes() for answer in answers]

        return [np.frombuffer(answer, "<i4").tolist() for answer in self._answers(keys, measure)]

    def _answers(
        self,
        keys: list[bytes],
        measure: Callable[[list[int], int], list[bytes]],
        worth_keeping: Callable[[bytes], bool] = lambda answer: True,
    ) -> list[bytes]:
        found = self.store.get(list(dict.fromkeys(keys)))
        missing = [place for place, key in enumerate(keys) if key not in found]
        self.asked += len(keys)
        self.hits += len(keys) - len(missing)
        if missing:
            new = dict(zip((keys[place] for place in missing), measure(missing, len(keys) - len(missing)), strict=True))
            self.store.put({key: answer for key, answer in new.items() if worth_keeping(answer)})
            found |= new
        return [found[key] for key in keys]

    def _key(self, op: str, ids: Sequence[int], settings: Sequence[int]) -> bytes:
        digest = hashlib.sha256(f"{self.identity}/{op}/{len(settings)}/".encode())
        digest.update(np.asarray([*settings, *ids], "<i4").tobytes())
        return digest.digest()


def _finite(answer: bytes) -> bool:
    """A log-probability that is no number is an accident to find again, not an answer to keep."""
    return bool(np.isfinite(_unpack_scored(answer).logprobs).all())


def _pack_scored(scored: Scored) -> bytes:
    return np.asarray(scored.logprobs, "<f4").tobytes() + np.asarray(scored.argmax, "<i4").tobytes()


def _unpack_scored(answer: bytes) -> Scored:
    half = len(answer) // 2
    return Scored(np.frombuffer(answer[:half], "<f4"), np.frombuffer(answer[half:], "<i4"))
