"""Is the Hugging Face hub there? Asked once, and answered at once: a run without a network must not hang."""

from __future__ import annotations

import os
import socket
import threading
from functools import cache
from urllib.parse import urlsplit

_SECONDS = 3.0


@cache
def hub_refusal() -> str | None:
    """None when the hub can be asked, else why not, for an error message."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return "HF_HUB_OFFLINE is set"
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None  # a proxy resolves names itself
    place = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = place.hostname or "huggingface.co", place.port or (80 if place.scheme == "http" else 443)
    reached = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=_SECONDS).close()
            reached.set()
        except OSError:
            pass

    # Name resolution has no deadline of its own, so it gets a thread that may be left behind.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return None if reached.is_set() else f"{host} does not answer"
