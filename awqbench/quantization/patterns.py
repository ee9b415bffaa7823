"""How linears are named by people: a name stands for itself and for all that end in it; `re:` begins an expression."""

from __future__ import annotations

import re
from typing import Any

from awqbench.errors import UserError


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern stands for the module called `name`; an expression must match the whole name."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return name == pattern or name.endswith(f".{pattern}")


def patterns(key: str, value: Any) -> tuple[str, ...]:
    """A list of patterns, checked. Raises UserError, naming `key`, for what is no list of names or no expression."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"{key} is {value!r} (allowed: a list of names, or of expressions that begin with re:)")
    for name in value:
        if name.startswith("re:"):
            try:
                re.compile(name[3:])
            except re.error as error:
                raise UserError(f"{key}: {name!r} is no regular expression: {error}") from None
    return tuple(value)
