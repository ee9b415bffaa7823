"""Where things that can be made again are kept between runs. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

from awqbench.errors import UserError


def cache_dir(name: str) -> Path:
    """A folder of the user's cache: $AWQBENCH_CACHE, else $XDG_CACHE_HOME/awqbench, else ~/.cache/awqbench."""
    base = os.environ.get("AWQBENCH_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "awqbench"
    )
    folder = Path(base) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the cache {folder}: {error.strerror}; set AWQBENCH_CACHE to a folder") from None
    return folder
