"""GPTQModel: AWQ and GPTQ folders through its own kernels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awqbench.backends.gptqmodel import GptqModelBackend
from awqbench.errors import NotApplicable, UserError

Opened = Callable[..., AbstractContextManager[Any]]
Expected = Callable[[Path | None], np.ndarray]


def test_another_quantization_is_not_its_business(checkpoint: Callable[[str], Path]) -> None:
    options = {"weights": str(checkpoint("compressed-tensors")), "dtype": "float32", "device": "cpu", "threads": None}
    with pytest.raises(NotApplicable, match="awq and gptq checkpoints, and this one is compressed-tensors"):
        GptqModelBackend().load(options)


@pytest.mark.engines
def test_unquantized_it_is_the_reference(opened: Opened, expected: Expected, agrees: Callable[..., None]) -> None:
    with opened("gptqmodel") as worker:
        assert worker.description["kernel"] == "Linear x15"
        agrees(worker, expected(None), 1e-6)


@pytest.mark.engines
@pytest.mark.parametrize(("layout", "dtype"), [("awq", "float32"), ("gptq", "bfloat16")])
def test_a_checkpoint_means_what_it_means_to_us(
    opened: Opened, checkpoint: Callable[[str], Path], expected: Expected, agrees: Callable[..., None],
    layout: str, dtype: str,
) -> None:  # fmt: skip
    with opened("gptqmodel", checkpoint(layout), dtype=dtype) as worker:
        assert worker.description["engine"] == "gptqmodel"
        kernels = worker.description["kernel"]
        assert "x14" in kernels
        assert "Linear x14" not in kernels.split(", ")
        agrees(worker, expected(checkpoint("awq")), 0.02)


@pytest.mark.engines
def test_a_kernel_may_be_asked_for(opened: Opened, checkpoint: Callable[[str], Path]) -> None:
    with opened("gptqmodel", checkpoint("awq"), settings={"kernel": "torch_awq"}) as worker:
        assert worker.description["kernel"] == "AwqTorchLinear x14, Linear x1"
    with (
        pytest.raises(UserError, match="unknown option kernel 'torch_awk'; did you mean 'torch_awq'"),
        opened("gptqmodel", checkpoint("awq"), settings={"kernel": "torch_awk"}),
    ):
        pass


@pytest.mark.engines
def test_a_kernel_that_drops_zero_points_is_refused(opened: Opened, checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(NotApplicable, match="TorchFusedLinear"), opened("gptqmodel", checkpoint("gptq")):
        pass
