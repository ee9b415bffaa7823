"""What the report says of a checkpoint: bits really used, what mixed precision bought, who saw too few tokens."""

from __future__ import annotations

from typing import Any

import pytest

from awqbench.record.reader import Run
from awqbench.report.html import html
from awqbench.report.sections.quantization import quantization


def linear(name: str, share: float, tokens: int = 1024) -> dict[str, Any]:
    return {
        "name": name, "shape": [8, 8], "bits": 4, "share": share, "tokens": tokens, "output_error": 0.1,
        "output_error_rtn": 0.2, "block_error": 0.01,
    }  # fmt: skip


@pytest.fixture
def mixed(run: Run) -> Run:
    run.quantization = {
        "awq": {
            "recipe": {"method": "awq+gptq", "bits": 4, "group_size": -1, "symmetric": True},
            "calibration": {"name": "x.jsonl", "protocol": "documents", "sha256": "c" * 64, "tokens": 1024},
            "linears": [linear("l.0.q", 0.2), linear("l.0.down", 0.7), linear("l.0.expert.3.up", 0.1, tokens=0)],
            "groups": [
                {"linears": ["l.0.q"], "status": "scaled", "reason": ""},
                {"linears": ["l.0.o"], "status": "left alone", "reason": "heads are repeated"},
            ],
            "kept": ["l.0.odd"],
            "mixed": {
                "keep_bits": 16, "bits_per_weight_before": 4.25, "bits_per_weight": 5.125, "error_removed": 0.7,
                "linears": [{"name": "l.0.down", "block_error": 0.03, "share": 0.7, "added_bytes": 2048}],
            },
            "warnings": [],
        }
    }  # fmt: skip
    return run


def test_bits_tokens_and_groups_are_counted(mixed: Run) -> None:
    (view,) = quantization(mixed)
    assert view.facts == {
        "linears": "2 in 4 bits, 1 in 16 bits, 1 kept as they were",
        "scale groups": "1 scaled, 1 left alone",
        "fewest calibration tokens of a linear": "0",
    }
    assert view.unseen == ["l.0.expert.3.up"]
    assert view.unscaled == ["l.0.o: heads are repeated"]


def test_a_linear_with_more_bits_stands_in_its_own_table(mixed: Run) -> None:
    (view,) = quantization(mixed)
    assert [row["name"] for row in view.linears] == ["l.0.q", "l.0.expert.3.up"]
    assert [row["name"] for row in view.mixed] == ["l.0.down"]
    assert view.mixed_summary.startswith("16 bits for 1 of 3 linears: 5.125 instead of 4.250 bits per weight")
    assert "70.00\u00a0% of the sum" in view.mixed_summary


def test_without_a_calibration_text_nobody_missed_tokens(mixed: Run) -> None:
    mixed.quantization["awq"] |= {"calibration": None, "mixed": None}
    (view,) = quantization(mixed)
    assert view.unseen == []
    assert "fewest calibration tokens of a linear" not in view.facts
    assert view.mixed_summary == ""


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("rtn", set()),
        ("awq", {"clip", "search"}),
        ("gptq", {"damping"}),
        ("awq+gptq", {"clip", "search", "damping"}),
    ],
)
def test_only_what_the_method_looks_at_is_shown(run: Run, method: str, shown: set[str]) -> None:
    run.quantization = {"awq": {"recipe": {"method": method, "clip": True, "search": "gram", "damping": 0.03}}}
    (view,) = quantization(run)
    assert set(view.recipe) == {"method"} | shown


def test_it_is_all_in_the_page(mixed: Run) -> None:
    page = html(mixed)
    for part in ("Mixed precision", "2.000\u00a0KiB", "no calibration token reached", "documents", "awq+gptq"):
        assert part in page
