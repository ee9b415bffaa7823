"""What bench.toml says of a server: where it is, whom to ask for, how hard to ask."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from awqbench.errors import NotApplicable, UserError, unknown_choice

OPTIONS = {
    "base_url": "where the server answers: http(s)://HOST:PORT/v1",
    "model": "the model's name there; by default the only one that /v1/models lists",
    "api_key_env": "name of the environment variable that holds the API key; the key itself never stands in a spec",
    "parity_base_url": "a server that runs the unquantized weights in the same engine; without it parity is unmeasured",
    "parity_model": "the model's name on the server of parity_base_url",
    "max_positions": "tokens that prompt and answer may have together, where the server does not tell",
    "vocab_size": "size of the vocabulary, where the server does not tell",
    "dtype": "what the server computes in, for the record: no server tells",
    "concurrency": "requests in flight at once (default 4)",
    "topk": "most likely tokens to ask for at a position, at most (default 1000)",
    "distributions": "whole (default) or top: whether llama.cpp is asked for the whole vocabulary, which is slow",
    "timeout": "seconds that one request may take (default 600)",
    "retries": "further tries of a request that met 429, 502, 503 or a broken connection (default 5)",
    "headers": "table of further HTTP headers; they stand in the record, so none may be secret",
    "extra_body": "table of further fields of every completion request, sent as they are",
}
_SECRET = {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked options of one server. `key` is the API key; it appears in no message and no record."""

    base_url: str
    model: str | None
    key: str | None = field(repr=False)
    key_from: str | None
    max_positions: int | None
    vocab_size: int | None
    dtype: str | None
    concurrency: int
    topk: int
    whole: bool
    timeout_s: float
    retries: int
    headers: dict[str, str]
    extra_body: dict[str, Any]

    @property
    def address(self) -> SplitResult:
        """base_url, taken apart."""
        return urlsplit(self.base_url)


def read_settings(options: Mapping[str, Any], *, unquantized: bool) -> Settings:
    """The settings in a backend's options table.

    With `unquantized`, those of the server that holds the original weights. Raises NotApplicable where the table names
    none, UserError for a value that cannot be right.
    """
    prefix = "parity_" if unquantized else ""
    if unquantized and not options.get("parity_base_url"):
        raise NotApplicable(
            "a server runs the weights it was started with, so its engine's parity is unmeasured "
            "(options.parity_base_url may name a second server with the unquantized weights)"
        )
    name = options.get("api_key_env")
    key = os.environ.get(str(name)) if name else None
    if name and not key:
        raise UserError(f"options.api_key_env is {name!r}, but no environment variable of that name holds a key")
    return Settings(
        base_url=_url(f"{prefix}base_url", options.get(f"{prefix}base_url")),
        model=_text(f"{prefix}model", options.get(f"{prefix}model")),
        key=key,
        key_from=str(name) if name else None,
        max_positions=_count(options, "max_positions", None, least=2),
        vocab_size=_count(options, "vocab_size", None),
        dtype=_text("dtype", options.get("dtype")),
        concurrency=_count(options, "concurrency", 4) or 4,
        topk=_count(options, "topk", 1000) or 1000,
        whole=_whole(options.get("distributions", "whole")),
        timeout_s=_seconds("timeout", options.get("timeout", 600)),
        retries=_count(options, "retries", 5, least=0) or 0,
        headers=_headers(options.get("headers", {})),
        extra_body=_table("extra_body", options.get("extra_body", {})),
    )


def _url(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"options.{name} is missing (allowed: http(s)://HOST:PORT/v1)")
    parts = urlsplit(value)
    try:
        parts.port  # noqa: B018  # reading it is what checks it
    except ValueError:
        raise UserError(f"options.{name} is {value!r}: no such port (allowed: 1 to 65535)") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"options.{name} is {value!r} (allowed: http(s)://HOST:PORT/v1)")
    if parts.username or parts.password:
        raise UserError(f"options.{name} holds a user or password, which would stand in the record (use api_key_env)")
    return value.rstrip("/")


def _text(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise UserError(f"options.{name} is {value!r} (allowed: a name)")
    return value


def _count(options: Mapping[str, Any], name: str, default: int | None, least: int = 1) -> int | None:
    value = options.get(name, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UserError(f"options.{name} is {value!r} (allowed: a whole number from {least} on)")
    return value


def _whole(value: Any) -> bool:
    if value not in {"whole", "top"}:
        raise unknown_choice("options.distributions", value, ("whole", "top"))
    return bool(value == "whole")


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UserError(f"options.{name} is {value!r} (allowed: seconds, more than 0)")
    return float(value)


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"options.{name} is {value!r} (allowed: a table)")
    return dict(value)


def _headers(value: Any) -> dict[str, str]:
    headers = {str(name): str(text) for name, text in _table("headers", value).items()}
    if secret := sorted(name for name in headers if name.lower() in _SECRET):
        raise UserError(f"options.headers holds {secret[0]}, which would stand in the record (use api_key_env)")
    if wrong := [name for name, text in headers.items() if "\n" in name + text or "\r" in name + text]:
        raise UserError(f"options.headers: {wrong[0]!r} holds a line break")
    return headers
