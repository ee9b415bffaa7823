"""One line for each quantizer: single figures, intervals over draws, and what failed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

BASE = {"label": "ours", "bits": 4, "method": "awq", "windows": 8, "tokens": 128} | {
    "exit": 0,
    "wall_s": 10.0,
    "peak_rss": 1_500_000_000,
}


def _rows(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"rows": {str(number): BASE | row for number, row in enumerate(rows)}}


def test_one_draw(script: Callable[[str], ModuleType]) -> None:
    text = script("table").markdown(_rows({"cpu_s": 38.4, "perplexity": 24.456, "kl": 0.11712}))
    assert "| ours | 4 | 1,024 | 1 | 38 | 10 | 1.50 GB | 24.46 | 0.1171 |" in text


def test_the_interval_over_draws(script: Callable[[str], ModuleType]) -> None:
    draws = [{"cpu_s": 40.0, "perplexity": 24.0, "kl": kl} for kl in (0.10, 0.11, 0.12)]
    # Standard error 0.01 / sqrt(3), t quantile 4.3027 at two degrees of freedom.
    assert "| 0.1100 ± 0.0248 |" in script("table").markdown(_rows(*draws))


def test_a_failure_is_said(script: Callable[[str], ModuleType]) -> None:
    text = script("table").markdown(_rows({"exit": 1, "cpu_s": 3.0, "error": "TypeError: no"}))
    assert "failed: TypeError: no" in text


def test_the_best_stands_last_and_rounding_needs_no_tokens(script: Callable[[str], ModuleType]) -> None:
    figures = {"cpu_s": 1.0, "perplexity": 20.0}
    text = script("table").markdown(
        _rows(figures | {"kl": 0.1}, figures | {"label": "nearest", "method": "rtn", "kl": 0.3})
    )
    assert text.index("| nearest | 4 | 0 |") < text.index("| ours |")
