"""Reading what a server answered: every value is checked, and a wrong one is named by its field."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from awqbench.backends.base import TopK
from awqbench.errors import InvalidMeasurement

# Servers that cannot write minus infinity as JSON write one of these in its place (vLLM; llama.cpp, the lowest
# float32): a placeholder, not a log-probability.
_FLOOR = -9998.0
# Rounding in float32 or bfloat16 may leave a certain token slightly above zero.
_ABOVE = 1e-2
_TOKEN_ID = "token_id:"


def member(value: Any, key: str | int, where: str) -> Any:
    """value[key] of an object or an array; `where` names the value in the message."""
    if isinstance(key, int):
        if isinstance(value, list) and len(value) > key:
            return value[key]
    elif isinstance(value, dict) and key in value:
        return value[key]
    inside = f"[{key}]" if isinstance(key, int) else f".{key}"
    raise InvalidMeasurement(f"the server's answer has no {where}{inside}: {shown(value)}")


def choice(answer: Any) -> dict[str, Any]:
    """The one choice of a completion."""
    found = member(member(answer, "choices", "answer"), 0, "choices")
    if not isinstance(found, dict):
        raise wrong("choices[0]", found, "an object")
    return found


def array(value: Any, where: str, length: int | None = None) -> list[Any]:
    """An array, of that length where one is given."""
    if not isinstance(value, list):
        raise wrong(where, value, "an array")
    if length is not None and len(value) != length:
        raise InvalidMeasurement(f"the server's {where} has {len(value)} entries, not {length}")
    return value


def token_id(value: Any, where: str) -> int:
    """A token id: a whole number, digits, or vLLM's "token_id:123"."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return value
    if isinstance(value, str):
        digits = value.removeprefix(_TOKEN_ID)
        if digits.isascii() and digits.isdigit() and int(digits) < 2**31:
            return int(digits)
    raise wrong(where, value, "a token id")


def named_id(text: Any) -> int | None:
    """The id in "token_id:123"; None for a token's plain text, which may look like a number."""
    return token_id(text, "token") if isinstance(text, str) and text.startswith(_TOKEN_ID) else None


def token_ids(value: Any, where: str) -> list[int]:
    """An array of token ids."""
    return [token_id(each, f"{where}[{i}]") for i, each in enumerate(array(value, where))]


def logprob(value: Any, where: str) -> float:
    """A log-probability, nats. Refuses NaN, what is above zero, and the placeholders for minus infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value > _ABOVE:
        raise wrong(where, value, "a log-probability")
    if value < _FLOOR:
        raise InvalidMeasurement(
            f"the server's {where} is {value:g}, which stands for a log-probability too low for it to tell"
        )
    return min(float(value), 0.0)


def best(pairs: list[tuple[int, float]], k: int, where: str) -> list[tuple[int, float]]:
    """The k most likely of (id, log-probability) pairs, likeliest first.

    Refuses repeated ids, fewer than k, and probabilities that add up to more than one.
    """
    if len({token for token, _ in pairs}) != len(pairs):
        raise InvalidMeasurement(f"the server's {where} names a token twice")
    if len(pairs) < k:
        raise InvalidMeasurement(f"the server's {where} has {len(pairs)} tokens, not {k}")
    if (mass := math.fsum(math.exp(value) for _, value in pairs)) > 1 + _ABOVE:
        raise InvalidMeasurement(f"the server's {where} holds probabilities that add up to {mass:.4g}")
    return sorted(pairs, key=lambda pair: -pair[1])[:k]


def stack(rows: list[list[tuple[int, float]]], k: int) -> TopK:
    """Rows of (id, log-probability) pairs as arrays [rows, k]."""
    ids = np.array([[token for token, _ in row] for row in rows], np.int32).reshape(len(rows), k)
    values = np.array([[value for _, value in row] for row in rows], np.float32).reshape(len(rows), k)
    return TopK(ids, values)


def wrong(where: str, value: Any, expected: str) -> InvalidMeasurement:
    """An error that names a field and what stands there."""
    return InvalidMeasurement(f"the server's {where} is {shown(value)}, not {expected}")


def shown(value: Any) -> str:
    """A value in a message: JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
