"""A worker behind the cache answers as the worker, and the worker is asked only what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.base import Scored
from awqbench.responses.cached import CachedWorker
from awqbench.responses.store import ResponseStore


class Counting:
    """Scores each token with its own value, generates the prompt reversed, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.description = {"max_positions": 8}

    def score(self, sequences: Any, starts: Any, progress: Any = None) -> list[Scored]:
        self.asked += len(sequences)
        if progress:
            progress(len(sequences), len(sequences))
        return [
            Scored(-np.array(ids[start:], np.float32) / 3, np.array(ids[start:], np.int32))
            for ids, start in zip(sequences, starts, strict=True)
        ]

    def generate(self, prompts: Any, max_new_tokens: int, stop_ids: Any, stop_texts: Any = ()) -> list[list[int]]:
        self.asked += len(prompts)
        return [list(reversed(prompt))[:max_new_tokens] for prompt in prompts]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with ResponseStore(tmp_path / "r", 10**9) as made:
        yield made


def behind(worker: Any, store: ResponseStore, identity: str = "model") -> CachedWorker:
    return CachedWorker(worker, store, identity)


def test_scores_come_back_to_the_byte(store: ResponseStore) -> None:
    worker = Counting()
    sequences, starts = [[1, 2, 3], [4, 5], [1, 2, 3]], [1, 1, 2]
    first = behind(worker, store).score(sequences, starts)
    seen: list[tuple[int, int]] = []
    again = behind(worker, store)
    second = again.score([*sequences, [9, 9]], [*starts, 1], lambda done, total: seen.append((done, total)))
    for one, other in zip([*worker.score(sequences, starts)], second, strict=False):
        assert one.logprobs.tobytes() == other.logprobs.tobytes()
        assert one.argmax.tobytes() == other.argmax.tobytes()
        assert other.logprobs.dtype == np.float32
    assert [scored.nll for scored in first] == [scored.nll for scored in second[:3]]
    assert (again.hits, again.asked) == (3, 4)
    assert worker.asked == 3 + 1 + 3
    assert seen == [(4, 4)]


def test_what_an_answer_depends_on_is_its_key(store: ResponseStore) -> None:
    worker = Counting()
    cached = behind(worker, store)
    cached.generate([[1, 2, 3]], 2, [0, 5])
    assert cached.generate([[1, 2, 3]], 2, [5, 0]) == [[3, 2]]
    assert worker.asked == 1
    assert cached.generate([[1, 2, 3]], 3, [5, 0]) == [[3, 2, 1]]
    cached.generate([[1, 2, 3]], 3, [5])
    cached.generate([[3, 1, 2, 3]], 2, [5])
    behind(worker, store, "other model").generate([[1, 2, 3]], 2, [0, 5])
    cached.score([[1, 2, 3]], [1])
    cached.score([[1, 2, 3]], [2])
    cached.generate([[1, 2, 3]], 2, [0, 5], ["\n", "/"])
    cached.generate([[1, 2, 3]], 2, [0, 5], ["/", "\n"])
    cached.generate([[1, 2, 3]], 2, [0, 5], ["/\n"])
    assert worker.asked == 9


def test_what_is_no_number_is_not_kept(store: ResponseStore) -> None:
    worker = Counting()
    worker.score = lambda *_: [Scored(np.array([np.nan], np.float32), np.array([1], np.int32))]  # type: ignore[method-assign]
    behind(worker, store).score([[1, 2]], [1])
    cached = behind(Counting(), store)
    assert cached.score([[1, 2]], [1])[0].nll == pytest.approx(2 / 3)
    assert cached.hits == 0


def test_all_else_is_the_workers_own(store: ResponseStore) -> None:
    worker = Counting()
    assert behind(worker, store).description is worker.description
