"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.report import format as fmt

NBSP = fmt.NBSP


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (fmt.significant, (26.0812,), "26.08"),
        (fmt.significant, (12345.6,), "12,346"),
        (fmt.significant, (0.00123449,), "0.001234"),
        (fmt.significant, (-0.5, 3), "−0.500"),
        (fmt.significant, (0.0,), "0"),
        (fmt.significant, (1.5e-9, 3), "1.50e−09"),
        (fmt.significant, (math.inf,), "∞"),
        (fmt.value, (0.7123, "share"), "71.23 %"),
        (fmt.value, (0.08, "share of positions"), "8.00 %"),
        (fmt.value, (24.151, "perplexity"), "24.15"),
        (fmt.value, (0.1146, "nats per token"), "0.1146 nats"),
        (fmt.value, (269_000_000, "bytes"), "256.5 MiB"),
        (fmt.value, (0.0312, "s"), "31.2 ms"),
        (fmt.delta, (0.098, "relative"), "+9.80 %"),
        (fmt.delta, (-0.013, "share"), "−1.30 points"),
        (fmt.delta, (0.0, "share"), "0 points"),
        (fmt.limit, (0.05, "relative"), "5 %"),
        (fmt.limit, (0.025, "share"), "2.5 points"),
        (fmt.limit, (0.2, "nats per token"), "0.2 nats"),
        (fmt.limit, (100.0, "tokens/s"), "100 tokens/s"),
        (fmt.interval, (0.081, 0.112, "relative"), "+8.10 to +11.2 %"),
        (fmt.interval, (-0.0002, 1.2, "s"), "−200 µs to +1.20 s"),
        (fmt.interval, (None, None, "s"), fmt.DASH),
        (fmt.p_value, (0.0004,), "<0.001"),
        (fmt.p_value, (0.021484375,), "0.021"),
        (fmt.p_value, (0.5,), "0.50"),
        (fmt.seconds, (90.0,), "90.0 s"),
        (fmt.seconds, (200.0,), "3.33 min"),
        (fmt.seconds, (10_000.0,), "2.78 h"),
        (fmt.size, (512,), "512.0 B"),
        (fmt.count, (12345,), "12,345"),
        (fmt.times, (31.0, 100.0), "0.310×"),
        (fmt.times, (1.0, 0.0), fmt.DASH),
        (fmt.short, ("perplexity/text@2048", "perplexity"), "text@2048"),
    ],
)
def test_golden(function: object, arguments: tuple[object, ...], text: str) -> None:
    assert function(*arguments).replace(NBSP, " ") == text  # type: ignore[operator]


@pytest.mark.parametrize(
    "function", [fmt.significant, fmt.value, fmt.delta, fmt.p_value, fmt.size, fmt.seconds, fmt.count]
)
@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_nobody_measured_is_a_dash(function: object, nothing: float | None) -> None:
    assert function(nothing) == fmt.DASH  # type: ignore[operator]


@given(st.floats(min_value=1e-300, max_value=1e15))
def test_three_digits_are_right_to_half_a_digit(x: float) -> None:
    shown = float(fmt.significant(x, 3).replace(",", "").replace(fmt.MINUS, "-"))
    assert shown == pytest.approx(x, rel=0.0051)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from(["relative", "share", "s", "nats"]))
def test_a_change_keeps_its_sign(x: float, unit: str) -> None:
    text = fmt.delta(x, unit)
    assert text.startswith("+") == (x > 0)
    assert text.startswith(fmt.MINUS) == (x < 0)
