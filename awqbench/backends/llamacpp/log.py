"""llama.cpp's log: warnings go to the cell's log, everything is kept for a while to say why something failed."""

from __future__ import annotations

import ctypes
import re
import sys
from collections import deque
from typing import Any

_INFO, _WARNING, _ERROR, _CONTINUED = 2, 3, 4, 5
_KEPT = 400
_BUFFER = re.compile(r"(\S+) model buffer size\s*=\s*([\d.]+) MiB")
_CACHE = re.compile(r"\bK \((\w+)\).*\bV \((\w+)\)")
_FLASH = re.compile(r"Flash Attention (enabled|disabled)|flash_attn\s*= (enabled|disabled)")
# The library calls back as long as the process lives, whatever becomes of the engine that asked for it.
_ATTACHED: list[Log] = []


class Log:
    """Receives what llama.cpp says, from any thread."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._level = 0
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(self._receive)

    def attach(self, functions: Any) -> None:
        """Take over the library's log. It is the process's, not a model's."""
        _ATTACHED.append(self)
        functions.llama_log_set(ctypes.cast(self._callback, ctypes.c_void_p), None)

    def _receive(self, level: int, text: bytes | None, _: Any) -> None:
        if level != _CONTINUED:
            self._level = level
        line = (text or b"").decode(errors="replace")
        if self._level >= _INFO and line.strip(" .\n"):
            self.lines.append((self._level, line.rstrip("\n")))
            if self._level in (_WARNING, _ERROR):
                sys.stderr.write(line if line.endswith("\n") else f"{line}\n")

    def clear(self) -> None:
        """Forget what was said before."""
        self.lines.clear()

    def reason(self) -> str:
        """The first error since `clear`, without the name of the function that met it; "" when there was none."""
        errors = [line for level, line in self.lines if level == _ERROR]
        return re.sub(r"^\w+: ", "", errors[0]).strip() if errors else ""

    def buffers(self) -> dict[str, float]:
        """Where the weights went since `clear`, MiB: {"CPU_Mapped": 86.9, "CPU_REPACK": 60.8}."""
        found: dict[str, float] = {}
        for _, line in self.lines:
            for name, size in _BUFFER.findall(line):
                found[name] = found.get(name, 0.0) + float(size)
        return found

    def cache_types(self) -> set[str]:
        """Types of the key-value caches made since `clear`, as llama.cpp named them."""
        return {name for _, line in self.lines for pair in _CACHE.findall(line) for name in pair}

    def flash_attention(self) -> str | None:
        """ "enabled" or "disabled", as llama.cpp decided since `clear`; None where it did not say."""
        found = [match[1] or match[2] for _, line in self.lines for match in _FLASH.finditer(line)]
        return found[-1] if found else None
