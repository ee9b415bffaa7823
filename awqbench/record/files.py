"""Writing that leaves the old file or the new one, never half of one; and what tells files and data apart."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel  # machines that only run kernels lack it


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside the target, flush to disk, rename over it."""
    _replace(path, lambda temporary: temporary.write_bytes(content.encode() if isinstance(content, str) else content))


def write_model(path: Path, model: BaseModel) -> None:
    """A record as indented JSON with a final newline."""
    write_atomic(path, model.model_dump_json(indent=2) + "\n")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def content_key(content: Any) -> str:
    """sha256 of plain data as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def stamp(path: Path) -> list[int]:
    """What tells that a file is another. Unpacking sets the time of modification as it likes, not that of change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
