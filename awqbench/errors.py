"""The errors awqbench raises on purpose, and the exit codes of its commands.

Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means to a shell or a CI job."""

    DONE = 0
    GATE_FAILED = 1
    USER_ERROR = 2
    INCONCLUSIVE = 3
    MEASUREMENT_FAILED = 4
    INTERRUPTED = 130


class AwqbenchError(Exception):
    """Base of the errors that are shown as one line, without a traceback."""

    exit_code = ExitCode.USER_ERROR


class UserError(AwqbenchError):
    """Something the user can mend: the message names the bad value and the allowed ones."""


class BackendUnavailable(AwqbenchError):
    """A backend's engine is not installed: the message names the command that installs it."""


class InvalidMeasurement(AwqbenchError):
    """A measurement that must not be believed: throttled, not a number, too few items."""

    exit_code = ExitCode.MEASUREMENT_FAILED


class NotApplicable(AwqbenchError):
    """What was asked cannot be measured on this backend, by its nature: the message says what it lacks."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unknown_choice(what: str, value: object, allowed: Iterable[object]) -> UserError:
    """A UserError for a value outside a fixed set, with the nearest allowed one suggested."""
    names = sorted(map(str, allowed))
    near = get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {what} {value!r}{hint} (allowed: {', '.join(names)})")
