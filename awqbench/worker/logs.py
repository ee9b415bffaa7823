"""The end of a worker's log, as text that can be shown anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024
_LINE_LENGTH = 400
# Colours and cursor movements of a terminal, then whatever else does not print.
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_UNPRINTABLE = re.compile(
    r"[^\t\x20-\x7e\xa0-\ufffd\U00010000-\U0010ffff]|[\ufeff\u200b-\u200f\u202a-\u202e\u2066-\u2069]"
)


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines that hold anything, cut to a bearable length; none where there is no log.

    Only the file's end is read: an engine can write gigabytes, in any encoding.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    # A progress bar overwrites its line: its last state is what would be seen.
    rows = [row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n")]
    cleaned = (_UNPRINTABLE.sub("", _ESCAPES.sub("", row)).rstrip() for row in rows)
    return [row if len(row) <= _LINE_LENGTH else f"{row[:_LINE_LENGTH]} ..." for row in cleaned if row][-lines:]
