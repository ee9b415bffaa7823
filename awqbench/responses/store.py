"""Answers by the hash of their question, in one SQLite file that several processes may share."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from awqbench.cache import cache_dir

Found = TypeVar("Found")

log = logging.getLogger(__name__)

FILE = "responses.sqlite"
# Another process may hold the file while it clears out: wait this long rather than go without.
BUSY_SECONDS = 60.0
_LOOKUP = 500  # SQLite's builds differ in how many parameters a query may have
_DIGEST = 16
_KEEP = 0.8  # of the allowed size, after clearing out
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used);
"""


def store_path() -> Path:
    """The user's response cache: a file that may not be there yet."""
    return cache_dir("responses") / FILE


class ResponseStore:
    """Bytes by 32-byte keys, the least recently used dropped above `max_bytes`. A context manager.

    Each answer lies beside its digest: one that does not fit is no answer, and a file that SQLite cannot read is set
    aside and begun anew. A store that cannot be read or written, of a full disk say, answers nothing and keeps nothing:
    what it would have saved is measured.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self._connection: sqlite3.Connection | None = None
        self._given_up = False

    def __enter__(self) -> ResponseStore:
        self._attempt(lambda _: None)
        return self

    def __exit__(self, *exc: object) -> None:
        self._attempt(self._clear_out)
        self._disconnect()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answers that are there. Those that are damaged are dropped."""
        return self._attempt(lambda connection: self._get(connection, keys)) or {}

    def put(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep answers, in one transaction."""
        now = int(time.time())
        rows = [(key, _sealed(answer), now) for key, answer in answers.items()]
        self._attempt(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        )

    def _get(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        damaged = []
        for low in range(0, len(keys), _LOOKUP):
            some = keys[low : low + _LOOKUP]
            places = ",".join("?" * len(some))
            for key, sealed in connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({places})", some):
                answer = _opened(sealed)
                if answer is None:
                    damaged.append((key,))
                else:
                    found[key] = answer
        now = int(time.time())
        connection.executemany("UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in found])
        connection.executemany("DELETE FROM answers WHERE key = ?", damaged)
        return found

    def _clear_out(self, connection: sqlite3.Connection) -> None:
        """Drop the answers that were not asked for longest, until the file is a good part below its bound."""
        size = _bytes(connection)
        if size <= self.max_bytes:
            return
        (count,) = connection.execute("SELECT count(*) FROM answers").fetchone()
        excess = count - int(count * _KEEP * self.max_bytes / size)
        connection.execute(
            "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY used LIMIT ?)", (excess,)
        )
        connection.commit()
        connection.execute("VACUUM")

    def _attempt(self, action: Callable[[sqlite3.Connection], Found]) -> Found | None:
        mended = False
        while not self._given_up:
            try:
                if self._connection is None:
                    self._connection = _connect(self.path)
                with self._connection:
                    return action(self._connection)
            except sqlite3.DatabaseError as error:
                self._disconnect()
                # An operational error is of the disk or of another process; the others are of the file itself.
                if mended or isinstance(error, sqlite3.OperationalError):
                    log.warning("the response cache %s cannot be used: %s", self.path, error)
                    self._given_up = True
                else:
                    log.warning("the response cache %s is damaged (%s): it is begun anew", self.path, error)
                    _remove(self.path)
                    mended = True
        return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def store_info(path: Path) -> dict[str, Any]:
    """Where the cache lies, how many answers it holds, its bytes on disk, and when it was last used (Unix seconds)."""
    found: dict[str, Any] = {"path": str(path), "answers": 0, "bytes": 0, "last_used": None}
    if path.is_file():
        found["bytes"] = sum(file.stat().st_size for file in _files(path))
        try:
            with closing(_connect(path)) as connection:
                found["answers"], found["last_used"] = connection.execute(
                    "SELECT count(*), max(used) FROM answers"
                ).fetchone()
        except sqlite3.DatabaseError as error:
            found["damaged"] = str(error)
    return found


def clear_store(path: Path) -> int:
    """Remove the cache; returns the bytes that were given back."""
    freed = sum(file.stat().st_size for file in _files(path))
    _remove(path)
    return freed


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        # With a write-ahead log readers don't wait for writers, and a process that is killed damages nothing.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _bytes(connection: sqlite3.Connection) -> int:
    sizes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
    return int(sizes[0] * sizes[1])


def _files(path: Path) -> Iterable[Path]:
    return [file for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if file.is_file()]


def _remove(path: Path) -> None:
    for file in _files(path):
        file.unlink(missing_ok=True)


def _sealed(answer: bytes) -> bytes:
    return hashlib.sha256(answer).digest()[:_DIGEST] + answer


def _opened(sealed: bytes) -> bytes | None:
    digest, answer = sealed[:_DIGEST], sealed[_DIGEST:]
    return answer if hashlib.sha256(answer).digest()[:_DIGEST] == digest else None
