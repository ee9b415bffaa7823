"""The calibration study as a program: what it counts, keeps and writes; and the gate on a few of its comparisons."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

CALIBRATION = Path(__file__).resolve().parents[2] / "suites" / "calibration"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CALIBRATION))
    return importlib.import_module("rates")


def test_limits_are_binomial_and_shared_out(rates: ModuleType) -> None:
    alone, many = (rates.Rate("s", "x", "m", 0, 2000, 0.05).limits(counts) for counts in (1, 1000))
    assert alone == (78, 123)  # 99 % of 2,000 at 5 %: 100 +/- 2.33 * 9.75
    assert many[0] < alone[0] < alone[1] < many[1]


@pytest.mark.parametrize(
    ("hits", "promise", "broken"),
    [
        (123, "at most", False),
        (124, "at most", True),
        (0, "at most", False),
        (77, "at least", True),
        (0, "about", False),
    ],
)
def test_a_promise_is_broken_beyond_its_limit(rates: ModuleType, hits: int, promise: str, broken: bool) -> None:
    assert rates.Rate("s", "x", "m", hits, 2000, 0.05, promise).broken(1) is broken


def test_the_program_keeps_what_is_done_and_fills_the_page(tmp_path: Path) -> None:
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    page.write_text(
        "before\n<!-- measured: suites/calibration/simulate.py -->\n<!-- end of what was measured -->\nafter\n"
    )
    command = [sys.executable, CALIBRATION / "simulate.py", "--runs", "20", "--only", "mcnemar", "families"]
    for _ in range(2):
        done = subprocess.run(
            [*command, "--json", out, "--into", page], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the second time nothing is left to do
    found = json.loads(out.read_text())
    assert [len(study["rates"]) for study in found["studies"].values()] == [51, 11]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| accuracy 0.7, 1 % flips, 20 items | 0.0 | 0.0 | 0.0 |" in text
    assert text.count("### Mcnemar") == 1


def test_the_gate_on_identical_models_and_on_its_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CALIBRATION))
    found = list(importlib.import_module("gates").study_gate(np.random.default_rng(0), 100))
    assert {rate.measure for rate in found} == {"fail", "pass", "pass at the margins"}
    assert not any(rate.broken(len(found)) for rate in found)
    passed = next(rate for rate in found if rate.measure == "pass" and "default" in rate.scenario)
    assert passed.share > 0.5  # 300 items show a margin of 3 points most of the time
