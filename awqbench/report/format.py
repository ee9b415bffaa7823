"""Numbers as people read them: three or four significant digits, a unit, and a real minus sign.

Every function takes None (and NaN) and gives a dash, so that a figure nobody measured never looks like one.
"""

from __future__ import annotations

import math
import re

DASH = "–"
MINUS = "−"
NBSP = "\u00a0"  # between a number and its unit, which no line break should part
_SHARES = {"share", "fraction", "proportion", "accuracy", "probability", "rate"}
_BYTES = {"bytes", "byte", "B"}
_TIME = {"s", "seconds", "second"}
_PREFIXED = _BYTES | _TIME
_SHORT = {"perplexity": "", "ratio": "", "1": "", "nats per token": "nats"}  # what the metric's name already says
# XML 1.0 has no way to write these characters, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SECONDS = ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min"))


def missing(value: float | None) -> bool:
    """True for None, NaN and pandas' NA."""
    return value is None or value != value


def is_share(unit: str) -> bool:
    """True for units of a share of a whole, which are shown as per cent and whose changes are points."""
    return unit in _SHARES or unit.startswith("share of")


def significant(value: float | None, digits: int = 4) -> str:
    """A plain number with `digits` significant digits and thousands separators: 12,340 · 0.001234 · 26.08."""
    if value is None or missing(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    text = f"{value:.{digits - 1}e}" if magnitude < -5 else f"{value:,.{max(0, digits - 1 - magnitude)}f}"
    return text.replace("-", MINUS)


def value(amount: float | None, unit: str = "") -> str:
    """An amount with its unit: shares as per cent, bytes as MiB or GiB, seconds as ms, s or min."""
    if amount is None or missing(amount):
        return DASH
    if is_share(unit):
        return f"{significant(100 * amount, 3 if abs(amount) < 0.1 else 4)}{NBSP}%"
    if unit == "relative":
        return f"{significant(100 * amount, 3)}{NBSP}%"
    if unit in _BYTES:
        return size(amount)
    if unit in _TIME:
        return seconds(amount)
    return f"{significant(amount)}{NBSP}{_SHORT.get(unit, unit)}".rstrip(NBSP)


def delta(amount: float | None, unit: str = "") -> str:
    """A signed change: relative changes in per cent, changes of a share in percentage points."""
    if amount is None or missing(amount):
        return DASH
    sign = "" if amount == 0 else "+" if amount > 0 else MINUS
    return sign + magnitude(abs(amount), unit)


def magnitude(amount: float | None, unit: str = "") -> str:
    """The size of a change, three significant digits, without a sign."""
    if amount is None or missing(amount):
        return DASH
    if is_share(unit):
        return f"{significant(100 * amount, 3)}{NBSP}points"
    if unit in _PREFIXED or unit == "relative":
        return value(amount, unit)
    return f"{significant(amount, 3)}{NBSP}{_SHORT.get(unit, unit)}".rstrip(NBSP)


def limit(amount: float | None, unit: str = "") -> str:
    """A declared limit: exact as it was written, so without the zeros that would claim a precision."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", magnitude(amount, unit)).replace(f".{NBSP}", NBSP).rstrip(".")


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends of an interval, the unit once where both have the same: `+8.10 to +11.2 %`; a dash for none."""
    if missing(low) and missing(high):
        return DASH
    ends = [delta(low, unit), delta(high, unit)]
    suffixes = {end.partition(NBSP)[2] for end in ends}
    if len(suffixes) == 1:
        ends[0] = ends[0].partition(NBSP)[0]
    return f"{ends[0]} to {ends[1]}"


def p_value(p: float | None) -> str:
    """A p-value with at most three decimals; `<0.001` below that."""
    if p is None or missing(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def size(amount: float | None) -> str:
    """Bytes in binary units."""
    if amount is None or missing(amount):
        return DASH
    scaled = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(scaled) < 1024:
            return f"{significant(scaled)}{NBSP}{unit}"
        scaled /= 1024
    return f"{significant(scaled)}{NBSP}TiB"


def seconds(amount: float | None) -> str:
    """Seconds in the unit that suits them, from ns to hours."""
    if amount is None or missing(amount):
        return DASH
    if amount == 0:
        return f"0{NBSP}s"
    for limit, factor, unit in _SECONDS:
        if abs(amount) < limit:
            return f"{significant(amount / factor, 3)}{NBSP}{unit}"
    return f"{significant(amount / 3600, 3)}{NBSP}h"


def count(amount: float | None) -> str:
    """A whole number with thousands separators."""
    return DASH if amount is None or missing(amount) else f"{round(amount):,}"


def ratio(logarithm: float | None) -> str:
    """The change that a difference of logarithms makes: ln 1.05 is `+5.00 %`."""
    return delta(None if logarithm is None else math.expm1(logarithm), "relative")


def times(candidate: float | None, baseline: float | None) -> str:
    """How many times the baseline: `0.31×`; a dash when either is missing or the baseline is zero."""
    if candidate is None or missing(candidate) or baseline is None or missing(baseline) or baseline == 0:
        return DASH
    return f"{significant(candidate / baseline, 3)}×"


def short(metric: str, kind: str) -> str:
    """A metric id without the suite kind it starts with, for places that already stand under that heading."""
    return metric.removeprefix(f"{kind}/")


def legal(text: str) -> str:
    """Text for XML and SVG: a replacement character for each that these cannot hold, such as a control character."""
    return _ILLEGAL.sub("�", text)
