"""Whatever transformers loads by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.errors import BackendUnavailable

Opened = Callable[..., AbstractContextManager[Any]]
Expected = Callable[[Path | None], np.ndarray]


def test_the_model_in_bfloat16(opened: Opened, expected: Expected, agrees: Callable[..., None]) -> None:
    with opened("transformers", dtype="bfloat16") as worker:
        assert worker.description["kernel"] == "Linear x15"
        assert worker.description["engine"] == "transformers"
        agrees(worker, expected(None), 0.01)


def test_a_compressed_tensors_checkpoint(
    opened: Opened, checkpoint: Callable[[str], Path], expected: Expected, agrees: Callable[..., None]
) -> None:
    pytest.importorskip("compressed_tensors")
    with opened("transformers", checkpoint("compressed-tensors")) as worker:
        agrees(worker, expected(checkpoint("awq")), 1e-5)


def test_what_a_checkpoint_needs_is_named(opened: Opened, checkpoint: Callable[[str], Path]) -> None:
    with (
        pytest.raises(BackendUnavailable, match=r"\(awq\): .*gptqmodel.*: awqbench env create gptqmodel"),
        opened("transformers", checkpoint("awq")),
    ):
        pass
