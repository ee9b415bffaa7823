"""HTTP to one server: a connection for each thread, deadlines, bounded retries, and errors that say what to check."""

from __future__ import annotations

import contextlib
import email.message
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from awqbench.backends.openai.settings import Settings
from awqbench.errors import AwqbenchError, InvalidMeasurement, UserError

BUSY = frozenset({429, 502, 503, 504})
_PIECE = 1 << 16
_LARGEST_REPLY = 1 << 30
_LONGEST_PAUSE = 20.0
# What a connection may end in between two requests, or before an answer has begun.
BROKEN = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, http.client.BadStatusLine)
# What else may go wrong on a line, and is no better the second time: answers that are no HTTP among it.
TROUBLE = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `text` is its body; `say` what it says of itself in a line."""

    url: str
    status: int
    headers: email.message.Message
    text: str

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return 200 <= self.status < 300

    @property
    def say(self) -> str:
        """The server's own words on an error, shortened."""
        found: Any = self.text
        with contextlib.suppress(ValueError):
            found = json.loads(self.text)
            for key in ("error", "message", "detail"):
                if isinstance(found, dict) and key in found:
                    found = found[key]
        words = " ".join((found if isinstance(found, str) else json.dumps(found)).split())
        return words[:300] or "no words"

    def json(self) -> Any:
        """The body as JSON. Raises InvalidMeasurement where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            start = " ".join(self.text.split())[:80]
            raise InvalidMeasurement(f"{self.url} answered what is no JSON: {start!r}") from None


class Client:
    """Requests to one server. May be used by many threads at once, each with its own connection, kept alive."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._thread = threading.local()
        self._all: set[http.client.HTTPConnection] = set()
        self._guard = threading.Lock()
        self._reached = False
        address = settings.address
        self.origin = f"{address.scheme}://{address.netloc}"
        self.prefix, self.root = address.path, address.path.removesuffix("/v1")
        self._host, self._port, self._secure = str(address.hostname), address.port, address.scheme == "https"
        self._proxy = _proxy(self._host, address.scheme)
        self._headers = {"Accept": "application/json", "User-Agent": "awqbench", **settings.headers}
        if settings.key:
            self._headers["Authorization"] = f"Bearer {settings.key}"

    def get(self, path: str) -> Reply:
        """GET a path under base_url, or beside its /v1 where it begins with "//". Any status comes back."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """POST JSON likewise. Raises UserError where no answer can be had, InvalidMeasurement for one that is late."""
        return self._ask("POST", path, body)

    def demand(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a POST yields.

        Raises UserError for what the user can mend, InvalidMeasurement for a request that the server refuses.
        """
        reply = self.post(path, body)
        if not reply.ok:
            raise self.refusal(reply)
        return reply.json()

    def refusal(self, reply: Reply) -> AwqbenchError:
        """What an answer of a status other than 2xx means to the user."""
        told = f"{reply.url} answered {reply.status}: {reply.say}"
        settings = self.settings
        if reply.status in {401, 403}:
            how = f"the key in ${settings.key_from}" if settings.key_from else "options.api_key_env: no key was sent"
            return UserError(f"{told} (check {how})")
        if reply.status == 404:
            return UserError(f"{told} (check options.base_url, {settings.base_url}, and options.model)")
        if 300 <= reply.status < 400:
            return UserError(f"{told}: moved to {reply.headers.get('Location')} (set options.base_url to where it is)")
        return InvalidMeasurement(told)

    def url(self, path: str) -> str:
        """The address of a path."""
        return self.origin + self._full(path)

    def _full(self, path: str) -> str:
        return self.root + path[1:] if path.startswith("//") else self.prefix + path

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Reply:
        """One answer, after retries. All requests of this package may be repeated: none changes the server."""
        deadline = time.monotonic() + self.settings.timeout_s
        pause = 0.25
        for tries_left in range(self.settings.retries, -1, -1):
            try:
                reply = self._once(method, path, body, deadline)
            except BROKEN as error:
                self.close()
                if not tries_left:
                    raise InvalidMeasurement(
                        f"{self.url(path)}: the connection broke {self.settings.retries + 1} times ({error!r})"
                    ) from error
                wait = 0.0 if tries_left == self.settings.retries else pause  # most likely it was idle for too long
            except TROUBLE as error:
                self.close()
                raise InvalidMeasurement(f"{self.url(path)}: {error!r}") from error
            else:
                if reply.status not in BUSY or not tries_left:
                    return reply
                wait = _retry_after(reply) or pause
            if time.monotonic() + wait > deadline:
                raise self._late(path)
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE) if wait else pause
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, body: dict[str, Any] | None, deadline: float) -> Reply:
        return self.finish(path, self.open(method, path, body, deadline), deadline)

    def finish(self, path: str, response: http.client.HTTPResponse, deadline: float) -> Reply:
        """The whole answer, once its head is there."""
        pieces, size = [], 0
        try:
            while piece := response.read1(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > _LARGEST_REPLY:
                    self.close()
                    raise InvalidMeasurement(f"{self.url(path)} answers without end ({size:,} bytes so far)")
                self.expect(path, deadline)
            if response.length:
                raise ConnectionResetError(f"{response.length} bytes of the answer are missing")
        except TimeoutError:
            raise self._late(path) from None
        except http.client.IncompleteRead as error:
            raise ConnectionResetError(str(error)) from error
        response.close()  # the connection may go on; what was read piece by piece does not close itself
        if response.will_close:
            self.close()
        return Reply(
            self.url(path), response.status, response.headers, b"".join(pieces).decode("utf-8", errors="replace")
        )

    def open(self, method: str, path: str, body: dict[str, Any] | None, deadline: float) -> http.client.HTTPResponse:
        """Send one request and wait for the head of its answer."""
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        target = self._full(path)
        if self._proxy and not self._secure:
            target = self.origin + target
        connection = self.connect(path)
        self.expect(path, deadline)
        try:
            connection.request(method, target, body=data, headers=headers)
            return connection.getresponse()
        except TimeoutError:
            raise self._late(path) from None

    def connect(self, path: str = "") -> http.client.HTTPConnection:
        """This thread's connection, opened where it is not.

        Raises UserError where nobody answers, InvalidMeasurement where nobody answers any more.
        """
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is not None and connection.sock is not None:
            return connection
        connection = self._new()
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(path, error) from None
        self._reached = True
        # A request is one small packet: waiting to fill it costs 40 ms.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread.connection = connection
        with self._guard:
            self._all.add(connection)
        return connection

    def _unreachable(self, path: str, error: OSError) -> AwqbenchError:
        """Why there is no connection: for the user to mend at first, a lost measurement once the server was there."""
        if isinstance(error, ConnectionRefusedError):
            told = "connection refused (is the server running, on this port?)"
        elif isinstance(error, ssl.SSLError):
            told = f"no secure connection ({error}) (is it http://?)"
        elif isinstance(error, socket.gaierror):
            told = f"no such host ({error.strerror}) (check options.base_url)"
        else:
            told = f"no connection ({error}) (check options.base_url)"
        if self._reached:
            return InvalidMeasurement(f"{self.url(path)}: the server is gone: {told}")
        return UserError(f"{self.url(path)}: {told}")

    def _new(self) -> http.client.HTTPConnection:
        host, port = (self._proxy or (self._host, self._port))[:2]
        wait = min(30.0, self.settings.timeout_s)
        if not self._secure:
            return http.client.HTTPConnection(host, port, timeout=wait)
        connection = http.client.HTTPSConnection(host, port, timeout=wait)
        if self._proxy:
            connection.set_tunnel(self._host, self._port or 443)
        return connection

    def expect(self, path: str, deadline: float) -> None:
        """Let this thread's connection wait until the deadline and no longer. Raises InvalidMeasurement past it."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._late(path)
        connection: http.client.HTTPConnection = self._thread.connection
        if connection.sock is not None:  # None: the answer's last piece is there already
            connection.sock.settimeout(left)

    def close(self) -> None:
        """Close this thread's connection."""
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is not None:
            connection.close()
            with self._guard:
                self._all.discard(connection)
        self._thread.connection = None

    def close_all(self) -> None:
        """Close every thread's connection."""
        with self._guard:
            for connection in self._all:
                connection.close()
            self._all.clear()

    def _late(self, path: str) -> InvalidMeasurement:
        self.close()
        return InvalidMeasurement(
            f"{self.url(path)}: no whole answer within {self.settings.timeout_s:g} s (options.timeout allows more)"
        )


def _retry_after(reply: Reply) -> float | None:
    """Seconds that the server asks to wait, within reason."""
    try:
        return min(max(float(reply.headers.get("Retry-After", "")), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return None


def _proxy(host: str, scheme: str) -> tuple[str, int] | None:
    """The environment's proxy for this host; never for this machine itself."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    given = getproxies().get(scheme)
    if not given or host == "localhost" or host.endswith(".localhost") or proxy_bypass(host):
        return None
    parts = urlsplit(given if "://" in given else f"http://{given}")
    return (parts.hostname, parts.port or 8080) if parts.hostname else None


def events(
    client: Client, path: str, response: http.client.HTTPResponse, deadline: float
) -> Iterator[tuple[float, Any]]:
    """Each event of a stream of server-sent events: when its line was there (perf_counter), and its JSON.

    Comments, event names and the closing "[DONE]" are passed over. Raises InvalidMeasurement for what is no such
    stream, for an error that comes in it, and for a stream that breaks off without an end.
    """
    where = client.url(path)
    try:
        while line := response.readline(_LARGEST_REPLY):
            now = time.perf_counter()
            client.expect(path, deadline)
            text = line.decode("utf-8", errors="replace").strip()
            if not text.startswith("data:"):
                continue
            data = text.removeprefix("data:").strip()
            if data == "[DONE]":
                response.read()
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise InvalidMeasurement(f"{where} streamed what is no JSON: {data[:80]!r}") from None
            if not isinstance(event, dict) or event.get("error"):
                raise InvalidMeasurement(f"{where} streamed an error: {data[:300]}")
            yield now, event
    except TimeoutError:
        raise InvalidMeasurement(f"{where}: the stream stood still until its deadline") from None
    except TROUBLE as error:
        raise InvalidMeasurement(f"{where}: the stream broke off ({error!r})") from error
    finally:
        if not response.isclosed():
            client.close()
