"""A real worker process with a real tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from awqbench.backends.base import Timing
from awqbench.backends.kind import Kind
from awqbench.errors import BackendUnavailable, NotApplicable, UserError
from awqbench.worker import promises
from awqbench.worker.client import Worker, WorkerFailed

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": 1, "batch_size": 4}
OWN_BACKEND_MODULES = ("base", "built_in", "kind", "registry")
WIDE = Kind("wide", "awqbench_trouble.engine:Wide", "a large vocabulary", weights="model")
TROUBLE = Kind("trouble", "awqbench_trouble.engine:Trouble", "fails on demand", weights="model")


@pytest.fixture(scope="module")
def worker(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("log") / "log.txt"
    with Worker("reference", {**OPTIONS, "weights": str(tiny_llama)}, log) as started:
        yield started


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


def expected(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1).numpy()


def sequence(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 250, length).tolist()


def test_describes_itself(worker: Worker) -> None:
    assert worker.description["vocab_size"] == 259
    assert worker.description["max_positions"] == 2048
    assert worker.description["kernel"] == "torch dense"
    assert worker.description["weight_bytes"] > 259 * 64 * 4


def test_scores_sequences_of_unlike_length_in_order(worker: Worker, model: torch.nn.Module) -> None:
    sequences = [sequence(n, n) for n in (5, 40, 2, 17, 40, 9, 33)]
    starts = [1, 10, 1, 16, 1, 4, 2]
    seen: list[tuple[int, int]] = []
    scored = worker.score(sequences, starts, lambda done, total: seen.append((done, total)))
    for ids, start, got in zip(sequences, starts, scored, strict=True):
        table = expected(model, ids)
        positions = range(start, len(ids))
        np.testing.assert_allclose(got.logprobs, [table[t - 1, ids[t]] for t in positions], atol=2e-5)
        assert got.argmax.tolist() == [int(table[t - 1].argmax()) for t in positions]
    assert seen[-1] == (len(sequences), len(sequences))


def test_answers_of_one_token_share_a_pass_and_change_nothing(worker: Worker, model: torch.nn.Module) -> None:
    question = sequence(12, 7)
    sequences = [[*question, 5], sequence(9, 8), [*question, 6], [*question, 6, 7], [3]]
    scored = worker.score(sequences, [12, 1, 12, 12, 1])
    table = expected(model, question)
    assert scored[0].logprobs[0] == pytest.approx(table[-1, 5], abs=2e-5)
    assert scored[2].logprobs[0] == pytest.approx(table[-1, 6], abs=2e-5)
    assert [len(s.logprobs) for s in scored] == [1, 8, 1, 2, 0]


def test_scores_nothing(worker: Worker) -> None:
    assert worker.score([], []) == []


@pytest.mark.parametrize("path", ["prefill", "decode"])
def test_full_logprobs_agree_on_both_paths(worker: Worker, model: torch.nn.Module, path: str) -> None:
    ids = sequence(150, 1)  # longer than one chunk
    table = np.concatenate(list(worker.logprobs(ids, 1, path)))
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, expected(model, ids)[:-1], atol=5e-5)
    np.testing.assert_allclose(np.exp(table.astype(np.float64)).sum(1), 1.0, atol=1e-5)


def test_an_abandoned_stream_does_not_spoil_the_next_request(worker: Worker) -> None:
    stream = worker.logprobs(sequence(400, 2), 1, "prefill")
    next(stream)
    stream.close()
    assert worker.memory()["host_peak"] > 0


def test_generates_greedily_and_stops(worker: Worker, model: torch.nn.Module) -> None:
    prompt = sequence(6, 3)
    free = worker.generate([prompt], 8, [])[0]
    assert len(free) == 8
    ids = list(prompt)
    for token in free:
        assert token == int(expected(model, ids)[-1].argmax())
        ids.append(token)
    stop = free[3]
    assert worker.generate([prompt], 8, [stop])[0] == free[: free.index(stop)]


def test_times_each_step(worker: Worker) -> None:
    timing = worker.time([sequence(5, 4), sequence(5, 5)], 6)
    assert timing.ttft_s > 0
    assert len(timing.gaps_s) == 5
    assert min(timing.gaps_s) > 0


def test_a_bug_is_reported_with_its_traceback_in_the_log(worker: Worker) -> None:
    with pytest.raises(WorkerFailed, match=r"log\.txt"):
        worker.time([[1, 2], [1]], 2)  # prompts of unlike length
    assert "Traceback" in worker.log.read_text()
    assert worker.generate([[1, 2]], 1, [])  # and the worker goes on


def test_what_the_user_can_mend_stays_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load the model"):
        Worker("reference", {**OPTIONS, "weights": str(tmp_path)}, tmp_path / "log.txt").__enter__()


@pytest.fixture(scope="module")
def plain(tiny_llama: Path, plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of a backend that needs nothing but numpy."""
    options = {"model_dir": str(tiny_llama), "settings": {}}
    log = tmp_path_factory.mktemp("plain") / "log.txt"
    with Worker(TROUBLE, options, log, environment={"PYTHONPATH": str(plugin_folder)}) as started:
        yield started


def test_a_worker_imports_only_what_it_must(plain: Worker) -> None:
    code = "import sys, numpy.random, awqbench.backends.registry; print(*sys.modules)"
    bare = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    added = {name for name in plain.description["modules"] if name.split(".")[0] not in sys.stdlib_module_names}
    assert added - set(bare) - {"__mp_main__"} == {
        "awqbench_trouble", "awqbench_trouble.engine", "awqbench.worker", "awqbench.worker.family",
        "awqbench.worker.guard", "awqbench.worker.ops", "awqbench.worker.protocol", "awqbench.worker.server",
    }  # fmt: skip
    ours = {name for name in bare if name.startswith("awqbench.")}
    own = (*OWN_BACKEND_MODULES, "openai", "openai.settings")
    known = {"awqbench.backends", "awqbench.errors", *(f"awqbench.backends.{n}" for n in own)}
    assert ours == known


def test_a_guard_imports_the_standard_library_alone() -> None:
    code = "import sys; before = set(sys.modules); import awqbench.worker.__main__; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    foreign = {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign == {
        "awqbench", "awqbench.worker", "awqbench.worker.__main__", "awqbench.worker.family", "awqbench.worker.guard"
    }  # fmt: skip


def test_what_was_not_declared_is_refused(plain: Worker) -> None:
    for op, message in {
        "logprobs": {"start": 1, "path": "prefill"},
        "topk_logprobs": {"start": 1, "k": 5},
        "generate": {"max_new_tokens": 1, "stop_ids": []},
        "time": {"new_tokens": 2},
        "tokenize": {"texts": ["a"], "special": False},
    }.items():
        with pytest.raises(NotApplicable, match=f"{op} needs .*; this backend offers score"):
            plain._ask(op, message)
    with pytest.raises(WorkerFailed, match="unknown operation 'sing'"):
        plain._ask("sing")
    assert plain.describe() == plain.description
    plain.unload()


def test_a_backend_that_cannot_be_imported_is_unavailable(tmp_path: Path) -> None:
    kind = Kind("gone", "no_such_module:Backend", "", weights="model")
    with pytest.raises(BackendUnavailable, match="no_such_module"):
        Worker(kind, {}, tmp_path / "log.txt").__enter__()


def test_a_large_request_after_an_abandoned_stream(worker: Worker) -> None:
    """Both sides would wait for the other to read, were what is left of the stream not read first."""
    stream = worker.logprobs(sequence(1500, 2), 1, "prefill")
    next(stream)
    stream.close()
    assert len(worker.score([[1, 2]] * 100_000, [2] * 100_000)) == 100_000


BROKEN: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
    "not a description": (promises.description, (None,)),
    "no list of capabilities": (promises.description, ({"load_s": 1.0},)),
    "declares 'sing' .allowed: score, logprobs": (promises.description, ({"capabilities": ["sing"]},)),
    "no load_s": (promises.description, ({"capabilities": ["score"]},)),
    "more results came back": (promises.scored_lengths, ([1, 1], [1, 1], 1)),
    "sequence 1 has 5 tokens to score, its result 4": (promises.scored_lengths, ([4], [9, 5], 1)),
    "3 rows were expected, 2": (promises.count, ("rows", 2, 3)),
    r"shape \[2, 5\], not \[rows, 6\]": (promises.rows, (np.zeros((2, 5), np.float32), 6)),
    r"shape \[2, 3\] and \[2, 4\], not \[rows, 4\]": (promises.top, (np.zeros((2, 3)), np.zeros((2, 4)), 4)),
    "3 gaps between tokens were expected, 1": (promises.gaps, (np.zeros(1), 3)),
    "is not a number": (promises.gaps, (np.array([0.1, np.nan]), 2)),
}


@pytest.mark.parametrize("says", BROKEN)
def test_what_a_backend_answers_wrongly_costs_its_cell(says: str) -> None:
    check, arguments = BROKEN[says]
    with pytest.raises(promises.BrokenPromise, match=says):
        check(*arguments)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("too few", "3 results were expected, 1 came back"),
        ("short argmax", r"argmax of shape \[3\] for 6 scored tokens"),
    ],
)
def test_too_few_results_are_a_failure(
    how: str, said: str, tiny_llama: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    options = {"model_dir": str(tiny_llama), "settings": {"how": how}}
    environment = {"PYTHONPATH": str(plugin_folder)}
    with (
        Worker(TROUBLE, options, tmp_path / "log.txt", environment=environment) as broken,
        pytest.raises(WorkerFailed, match=f"score: {said}"),
    ):
        broken.score([[1, 2, 3]] * 3, [1] * 3)


def test_a_large_chunk_is_there_once_in_the_worker(plugin_folder: Path, tmp_path: Path) -> None:
    """Three chunks of 64 MiB pass through; the process never holds a second one, nor a copy."""
    environment = {"PYTHONPATH": str(plugin_folder)}
    with Worker(WIDE, {}, tmp_path / "log.txt", environment=environment) as wide:
        before = wide.memory()["host_now"]
        rows = [len(chunk) for chunk in wide.logprobs([0] * 385, 1, "prefill")]
        assert rows == [128] * 3
        assert 60 * 2**20 < wide.memory()["host_peak"] - before < 72 * 2**20


def test_what_decoded_a_batch_otherwise_crosses(plugin_folder: Path, tmp_path: Path) -> None:
    with Worker(WIDE, {}, tmp_path / "log.txt", environment={"PYTHONPATH": str(plugin_folder)}) as wide:
        assert wide.time([[1]], 3) == Timing(0.5, [0.25, 0.25])
        assert wide.time([[1], [2]], 2) == Timing(0.5, [0.25], "a slower step: the fast one takes one sequence")


def test_a_worker_that_died_idle_is_noticed(tiny_llama: Path, plugin_folder: Path, tmp_path: Path) -> None:
    options = {"model_dir": str(tiny_llama)}
    with Worker(TROUBLE, options, tmp_path / "log.txt", environment={"PYTHONPATH": str(plugin_folder)}) as started:
        assert started.alive
        os.kill(started.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while started.alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)
