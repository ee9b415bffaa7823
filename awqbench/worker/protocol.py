"""How a worker and its client talk: version 2.

A message is a frame over a Unix stream socket: 4 bytes, the length of a JSON header (little-endian); the header; then
the raw bytes of the arrays it lists, in order. Arrays never pass through text. Standard library and numpy only.

    request   {"id": 7, "op": "score", ..., "arrays": [{"name": "ids", "dtype": "int32", "shape": [812]}]}
    reply     {"id": 7, "kind": "result" | "part" | "error" | "beat", ..., "arrays": [...]}

A request is answered by any number of "part" frames and one "result" or "error". "beat" frames arrive every few
seconds while the worker lives, so that a long computation and a hang can be told apart. End of stream ends the worker.
docs/worker.md has the operations, with their fields and arrays.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

VERSION = 2
BEAT_SECONDS = 2.0
MAX_HEADER = 64 * 2**20

Message = dict[str, Any]
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class ConnectionClosed(Exception):
    """The other side is gone."""


def send(connection: socket.socket, message: Message, arrays: Arrays | None = None) -> None:
    """Write one frame. Raises ConnectionClosed when the other side is gone."""
    # Only what does not lie in one piece is copied.
    blobs = {n: a if a.flags.c_contiguous else np.ascontiguousarray(a) for n, a in (arrays or {}).items()}
    described = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in blobs.items()]
    header = json.dumps({**message, "arrays": described}, separators=(",", ":")).encode()
    try:
        connection.sendall(struct.pack("<I", len(header)) + header)
        for blob in blobs.values():
            if blob.size:
                connection.sendall(blob.reshape(-1).view(np.uint8).data)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ConnectionClosed from error


def receive(connection: socket.socket) -> tuple[Message, Arrays]:
    """Read one frame. Raises ConnectionClosed at the end of the stream, TimeoutError past the socket's deadline."""
    (length,) = struct.unpack("<I", _read(connection, 4))
    if length > MAX_HEADER:
        raise ConnectionClosed(f"a header of {length} bytes: the stream is not awqbench's worker protocol")
    message: Message = json.loads(bytes(_read(connection, length)))
    if not isinstance(message, dict):
        raise ConnectionClosed("a header that is no JSON object: the stream is not awqbench's worker protocol")
    arrays: Arrays = {}
    for described in message.pop("arrays", []):
        array = np.empty(described["shape"], dtype=np.dtype(described["dtype"]))
        if array.size:
            _fill(connection, array.reshape(-1).view(np.uint8).data)
        arrays[described["name"]] = array
    return message, arrays


def pack(sequences: Sequence[Sequence[int]]) -> Arrays:
    """Sequences of token ids as one flat array `ids` int32, with their `lengths` int32 [sequences]."""
    lengths = np.array([len(s) for s in sequences], np.int32)
    flat = np.fromiter((token for s in sequences for token in s), np.int32, int(lengths.sum()))
    return {"lengths": lengths, "ids": flat}


def unpack(arrays: Arrays) -> list[list[int]]:
    """What `pack` packed."""
    ends = np.cumsum(arrays["lengths"])
    ids = arrays["ids"]
    return [ids[end - length : end].tolist() for end, length in zip(ends, arrays["lengths"], strict=True)]


def _read(connection: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    _fill(connection, memoryview(buffer))
    return buffer


def _fill(connection: socket.socket, view: memoryview) -> None:
    while view:
        try:
            got = connection.recv_into(view)
        except ConnectionResetError as error:
            raise ConnectionClosed from error
        if got == 0:
            raise ConnectionClosed
        view = view[got:]
