"""Where environments lie, what is written into a finished one, and the lock of one that is being made.

An environment is built where it will stay, since the scripts of a virtual environment name its folder; the marker that
is written last tells a finished one from one that was interrupted. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from awqbench.cache import cache_dir
from awqbench.errors import UserError
from awqbench.locks import taken
from awqbench.record.files import write_atomic

MARKER = "awqbench-env.json"
PLACE = "AWQBENCH_ENVIRONMENTS"


@dataclass(frozen=True, slots=True)
class Made:
    """The marker of a finished environment.

    `digest` is its recipe's; `packages` holds the version of every distribution by its normalized name and `main` the
    distributions that provide the modules it was made for; `bytes` its size on disk, `seconds` the wall time of making.
    """

    name: str
    variant: str
    digest: str
    python: str
    installer: str
    packages: dict[str, str]
    main: list[str]
    bytes: int
    seconds: float
    created: str

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its main packages."""
        return {name: self.packages[name] for name in self.main}


def root() -> Path:
    """The folder of all environments: $AWQBENCH_ENVIRONMENTS, else one in the user's cache."""
    given = os.environ.get(PLACE)
    if not given:
        return cache_dir("environments")
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; set {PLACE} to another folder") from None
    return folder


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "bin" / "python"


def read_marker(folder: Path) -> Made | None:
    """What a finished environment says of itself; None for one that is not finished."""
    try:
        found: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Made(**found)
    except (OSError, ValueError, TypeError):
        return None


def write_marker(folder: Path, made: Made) -> None:
    """Say that an environment is finished."""
    write_atomic(folder / MARKER, json.dumps(asdict(made), indent=2) + "\n")


def tree_bytes(folder: Path) -> int:
    """Bytes of the files in a folder: blocks on disk, links not followed, a file with several names counted once."""
    total, seen = 0, set()
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


@contextmanager
def lock(name: str) -> Iterator[int]:
    """Hold the right to make or remove an environment; yields the lock's file descriptor.

    Children that inherit the descriptor hold the lock too, so that an installer which outlives a killed awqbench is
    not joined by a second one. Raises UserError, without waiting, while somebody else holds it.
    """
    descriptor = os.open(root() / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not taken(descriptor, root() / name):
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise UserError(f"the environment {name} is being made or removed by process {owner}: wait for it")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def locked_by(name: str) -> str | None:
    """The process that is making or removing an environment right now."""
    try:
        descriptor = os.open(root() / f".{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    except OSError:  # a file system without locks tells nobody
        return None
    finally:
        os.close(descriptor)
    return None
