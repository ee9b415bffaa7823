"""Models that are made on this machine, once, into the user's cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_folder(folder: Path, make: Callable[[Path], object]) -> Path:
    """A model's folder, made where it is not there yet.

    Of several processes that make it at once the first to be done keeps its own: it may be reading it already.
    """
    if _complete(folder):
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "model"
        make(made)
        if folder.exists() and not _complete(folder):
            shutil.rmtree(folder)
        try:
            made.rename(folder)
        except OSError:
            if not _complete(folder):
                raise
    return folder


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file()
