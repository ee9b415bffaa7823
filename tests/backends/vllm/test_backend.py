"""vLLM's engine in its environment. What is refused before it is imported: test_vllm_options.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.errors import UserError

Opened = Callable[..., AbstractContextManager[Any]]
Expected = Callable[[Path | None], np.ndarray]
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("dtype", "max_kl"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_unquantized(
    opened: Opened, expected: Expected, agrees: Callable[..., None], dtype: str, max_kl: float
) -> None:
    with opened("vllm", dtype=dtype) as worker:
        assert worker.description["dtype"] == dtype
        assert worker.description["quantization"] is None
        assert worker.description["kernel"].startswith("UnquantizedLinearMethod")
        agrees(worker, expected(None), max_kl)


@pytest.mark.parametrize(
    ("layout", "dtype", "max_kl"),
    # bfloat16: below 0.02 on an AMD EPYC, 0.032 on an Intel Xeon, whose AMX units multiply otherwise.
    [("awq", "bfloat16", 0.05), ("awq", "float16", 1e-3), ("compressed-tensors", "float16", 1e-3)],
)
def test_four_bits(
    opened: Opened, checkpoint: Callable[[str], Path], expected: Expected, agrees: Callable[..., None],
    layout: str, dtype: str, max_kl: float,
) -> None:  # fmt: skip
    from awqbench.errors import NotApplicable

    try:
        with opened("vllm", checkpoint(layout), dtype=dtype) as worker:
            assert worker.description["kernel"] == "CPUWNA16LinearKernel x8"
            agrees(worker, expected(checkpoint("awq")), max_kl)
    except NotApplicable as lacking:
        pytest.skip(str(lacking))


def test_a_window_as_long_as_the_model_allows_and_what_vllm_refuses(opened: Opened) -> None:
    ids = np.random.default_rng(1).integers(3, 259, 128).tolist()
    settings = {"max_model_len": 128, "engine_args": {"max_num_batched_tokens": 128}}
    with opened("vllm", settings=settings) as worker:
        assert worker.description["max_positions"] == 128
        (scored,) = worker.score([ids], [1])
        assert len(scored.logprobs) == 127
    with (
        pytest.raises(UserError, match="vLLM cannot load"),
        opened("vllm", settings={"engine_args": {"block_size": 7, "quantization": "no-such"}}),
    ):
        pass


def test_prompts_split_over_steps(opened: Opened) -> None:
    ids = np.random.default_rng(2).integers(3, 259, 96).tolist()
    split = {"max_model_len": 96, "engine_args": {"max_num_batched_tokens": 48, "max_num_seqs": 4}}
    with opened("vllm") as one:
        right = one.score([ids], [1])[0]
    with opened("vllm", settings=split) as worker:
        found = worker.score([ids], [1])[0]
        assert np.abs(found.logprobs - right.logprobs).max() < 1e-3
        timing = worker.time([ids[:64], ids[32:96]], 4)
        assert len(timing.gaps_s) == 3
        assert all(gap > 0 for gap in timing.gaps_s)
