"""Which engines are within their bounds, and what is said of those that are not."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from awqbench.compare import Cell, parity_notes, parity_rows
from awqbench.record.schema import CellResult, Metric, Parity
from awqbench.spec import ParitySpec

BOUNDS = ParitySpec(max_kl=0.01, max_disagreement=0.05)


def cell(backend: str, figures: dict[str, float], **changes: Any) -> Cell:
    metrics = [
        Metric(id=name, value=value, unit="", n=2, protocol="", detail={"positions": 62}, pairing="to-reference")
        for name, value in figures.items()
    ]
    result = CellResult(
        backend=backend, suite="parity", kind="parity", role="parity", key="k", status="ok", metrics=metrics,
        engine={"engine": "vllm", "engine_version": "0.32.0", "dtype": "bfloat16"},
    )  # fmt: skip
    return Cell(result.model_copy(update=changes), pd.DataFrame())


def row(figures: dict[str, float], **changes: Any) -> Parity:
    (only,) = parity_rows([cell("vllm", figures, **changes)], {"vllm": "vllm", "vllm-rtn": "vllm"}, BOUNDS)
    return only


def test_an_engine_that_agrees() -> None:
    found = row(
        {
            "parity/t@64/prefill/kl": 0.001, "parity/t@8/decode/kl": 0.002, "parity/same-tokens": 1.0,
            "parity/t@64/prefill/top1-disagreement": 0.01, "parity/same-bos": 1.0,
        }
    )  # fmt: skip
    assert (found.status, found.backends, found.positions) == ("within", ["vllm", "vllm-rtn"], 62)
    assert (found.kl, found.kl_decode, found.same_bos, found.dtype) == (0.001, 0.002, True, "bfloat16")
    assert parity_notes([found]) == []


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"parity/t@64/prefill/kl": 0.02}, "mean KL is 0.02 nats (bound 0.01)"),
        ({"parity/t@64/prefill/kl": 0.002, "parity/t@8/decode/kl": 0.3}, "mean KL is 0.3 nats"),
        ({"parity/t@64/prefill/kl-top100-lower-bound": 0.5}, "mean KL is at least 0.5 nats"),
        ({"parity/t@64/prefill/top1-disagreement": 0.2}, "another top token at 20.0% of positions"),
        ({"parity/t@64/prefill/logprob-error": 0.2}, "log-probabilities are off by 0.2 nats (bound 0.141)"),
    ],
)
def test_what_is_out_of_bounds_is_named(figures: dict[str, float], said: str) -> None:
    found = row(figures)
    assert found.status == "outside"
    assert said in found.reason
    assert parity_notes([found]) == [f"vllm, vllm-rtn: engine parity outside: {found.reason}"]


def test_another_tokenizer_touches_no_figure_and_is_told() -> None:
    found = row({"parity/t@64/prefill/kl": 0.001, "parity/same-tokens": 0.9, "parity/same-bos": 0.0})
    assert found.status == "within"
    tokens, begin = found.warnings
    assert "splits 10.0% of the texts otherwise" in tokens
    assert "(BOS)" in begin
    assert parity_notes([found]) == [f"vllm, vllm-rtn: {tokens}", f"vllm, vllm-rtn: {begin}"]


@pytest.mark.parametrize("status", ["failed", "skipped", "not_applicable"])
def test_what_could_not_be_measured_is_unmeasured_not_fine(status: str) -> None:
    found = row({}, status=status, reason="awqbench env create vllm")
    assert (found.status, found.reason, found.kl) == ("unmeasured", "awqbench env create vllm", None)


def test_a_missing_cell_is_unmeasured() -> None:
    (only,) = parity_rows([], {"vllm": "vllm"}, BOUNDS)
    assert (only.status, only.reason) == ("unmeasured", "no parity cell")
