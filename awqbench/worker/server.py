"""The worker's side of the connection: one request at a time, and a second thread that says the process lives."""

from __future__ import annotations

import os
import socket
import threading
import traceback

import awqbench.errors as errors
from awqbench.worker.ops import PARTS, RESULTS, Session
from awqbench.worker.protocol import BEAT_SECONDS, Arrays, ConnectionClosed, Message, receive, send


class Server:
    """Answers a client until it closes the connection."""

    def __init__(self, connection: socket.socket, session: Session) -> None:
        self.connection = connection
        self.session = session
        self._request = 0
        self._answering = False
        self._lock = threading.Lock()  # a beat must not fall into the middle of an answer

    def serve(self) -> None:
        """Answer requests until the client is gone."""
        threading.Thread(target=self._beat, name="awqbench-beat", daemon=True).start()
        try:
            while True:
                message, arrays = receive(self.connection)
                self._request, self._answering = message.pop("id"), True
                try:
                    self._answer(message.pop("op"), message, arrays)
                except ConnectionClosed:
                    raise
                except Exception as error:
                    self._reply("error", _as_message(error))
                self._answering = False
                del arrays
        except ConnectionClosed:
            return

    def _answer(self, op: str, message: Message, arrays: Arrays) -> None:
        self.session.permit(op, message)
        if op in RESULTS:
            self._reply("result", *RESULTS[op](self.session, message, arrays))
            return
        for part in PARTS[op](self.session, message, arrays):
            self._reply("part", *part)
            del part  # a chunk of a vocabulary must not wait here while the next one is made
        self._reply("result")

    def _reply(self, kind: str, message: Message | None = None, arrays: Arrays | None = None) -> None:
        with self._lock:
            send(self.connection, {"id": self._request, "kind": kind, **(message or {})}, arrays)

    def _beat(self) -> None:
        quiet = threading.Event()
        while not quiet.wait(BEAT_SECONDS):
            try:
                self._reply("beat")
            except ConnectionClosed:
                if self._answering:
                    os._exit(1)  # whatever the engine computes now has no reader
                return  # `serve` ends by itself, and the process with its own status


def _as_message(error: Exception) -> Message:
    """The class that the client knows: a plugin's own subclass of an awqbench error travels as that error."""
    known = next((c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c), "bug")
    text = str(error) or type(error).__name__
    return {"type": known, "message": text, "traceback": "".join(traceback.format_exception(error))}
