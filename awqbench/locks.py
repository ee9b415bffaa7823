"""Locks of files, which the kernel frees when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)


def taken(lock: IO[Any] | int, place: Path) -> bool:
    """Take an open file's lock for oneself, without waiting; False where somebody else holds it.

    `place` is what it guards. On a file system without locks it is had with a warning: it could not be used otherwise.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Lustre and NFS may be mounted so
        log.warning("%s cannot be locked (%s): let no second process work in it", place, error.strerror)
    return True
