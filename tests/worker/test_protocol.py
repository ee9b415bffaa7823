"""Frames: what goes in comes out, arrays as they are in memory and never copied on the way."""

from __future__ import annotations

import json
import socket
import struct
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from awqbench.worker.protocol import ConnectionClosed, pack, receive, send, unpack

TYPES = st.sampled_from(["int32", "float32", "float64", ">i2", "bool"])


def exchange(message: dict[str, Any], blobs: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=send, args=(theirs, message, blobs))
        sender.start()
        got = receive(ours)
        sender.join()
    return got


@given(TYPES.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0))), st.text())
def test_arrays_of_every_shape_come_through(array: np.ndarray, text: str) -> None:
    message, found = exchange({"id": 1, "text": text}, {"a": array, "b": array.T})
    assert message == {"id": 1, "text": text}
    for name, sent in (("a", array), ("b", array.T)):
        assert found[name].dtype == sent.dtype
        assert found[name].shape == sent.shape
        np.testing.assert_array_equal(found[name], sent)


@given(st.lists(st.lists(st.integers(0, 2**31 - 1))))
def test_sequences_come_through(sequences: list[list[int]]) -> None:
    assert unpack(exchange({}, pack(sequences))[1]) == sequences


def test_bytes_on_the_wire_are_those_documented() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"id": 1, "op": "hello"}, {"x": np.array([1, 2], "<i4")})
        raw = ours.recv(4096)
    header = b'{"id":1,"op":"hello","arrays":[{"name":"x","dtype":"<i4","shape":[2]}]}'
    assert raw == struct.pack("<I", len(header)) + header + bytes([1, 0, 0, 0, 2, 0, 0, 0])


def test_a_large_chunk_is_held_once_on_each_side() -> None:
    """128 rows of a vocabulary of 128k: 64 MiB, sent from where it is and received where it stays."""
    chunk = np.zeros((128, 131_072), np.float32)
    chunk[::7, ::1001] = 1.5
    tracemalloc.start()
    try:
        _, found = exchange({}, {"logprobs": chunk})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert chunk.nbytes <= peak < chunk.nbytes + 2**20
    assert np.array_equal(found["logprobs"], chunk)


def test_no_number_of_an_array_passes_through_text() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {}, {"x": np.full(1000, 1 / 3)})
        (length,) = struct.unpack("<I", ours.recv(4))
        assert json.loads(ours.recv(length)) == {"arrays": [{"name": "x", "dtype": "<f8", "shape": [1000]}]}


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x10\x00\x00\x00{", b"\xff\xff\xff\xff", b"\x02\x00\x00\x00[]"])
def test_a_stream_that_ends_or_is_no_protocol_is_a_closed_connection(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed):
            receive(ours)
