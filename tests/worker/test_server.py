"""The worker's side of the connection when the client leaves, over a socket pair in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from awqbench.worker import ops, server
from awqbench.worker.protocol import receive, send

SECONDS = 20.0


class Exits:
    """Stands in for os._exit, which would end the test's own process."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.happened = threading.Event()

    def __call__(self, status: int) -> None:
        self.statuses.append(status)
        self.happened.set()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    ends = Exits()
    monkeypatch.setattr(server, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(server.os, "_exit", ends)
    return ends


@pytest.fixture
def client(exits: Exits) -> Iterator[socket.socket]:
    """The client's end, with a server at the other that has sent its first beat."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = threading.Thread(target=server.Server(theirs, ops.Session("")).serve, name="serving")
        serving.start()
        assert receive(ours)[0]["kind"] == "beat"
        yield ours
        serving.join(SECONDS)
        assert not serving.is_alive()


def wait_for_the_end() -> None:
    """Of the server's threads."""
    for thread in threading.enumerate():
        if thread.name in {"serving", "awqbench-beat"}:
            thread.join(SECONDS)


def test_a_client_that_leaves_between_requests_is_no_failure(exits: Exits, client: socket.socket) -> None:
    """However long the interpreter then takes to end, with a beat due meanwhile: exit status 0."""
    client.close()
    wait_for_the_end()
    assert exits.statuses == []


def test_a_client_that_leaves_during_a_request_ends_the_computation(
    exits: Exits, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def endless(*_: Any) -> ops.Answer:
        asked.set()
        assert exits.happened.wait(SECONDS)
        return {}, {}

    answers: dict[str, Callable[..., ops.Answer]] = {"memory": endless}
    monkeypatch.setattr(server, "RESULTS", answers)
    send(client, {"id": 1, "op": "memory"})
    assert asked.wait(SECONDS)
    client.close()
    wait_for_the_end()
    assert exits.statuses == [1]
