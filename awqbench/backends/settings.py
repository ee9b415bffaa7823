"""A kind's own options, checked: a wrong value is named together with the allowed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from awqbench.errors import UserError, unknown_choice


def choice(settings: Mapping[str, Any], name: str, allowed: Sequence[Any]) -> Any:
    """The option `name`, the first allowed value by default."""
    value = settings.get(name, allowed[0])
    # True == 1 in Python, but `bits = true` is a mistake.
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise unknown_choice(f"option {name}", value, allowed)
    return value


def whole(settings: Mapping[str, Any], name: str, default: int | None, minimum: int = 1) -> int | None:
    """The option `name`: a whole number of at least `minimum`."""
    value: int | None = settings.get(name, default)
    if value is default:
        return default
    if type(value) is not int or value < minimum:
        raise UserError(f"option {name} is {value!r} (allowed: a whole number, {minimum} or more)")
    return int(value)


def flag(settings: Mapping[str, Any], name: str, default: bool | None) -> bool | None:
    """The option `name`: true or false."""
    value = settings.get(name, default)
    if value is not default and type(value) is not bool:
        raise UserError(f"option {name} is {value!r} (allowed: true, false)")
    return value


def table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The option `name`: a table, empty by default."""
    value = settings.get(name, {})
    if not isinstance(value, Mapping):
        raise UserError(f"option {name} is {value!r} (allowed: a table)")
    return dict(value)
