"""The store keeps what it was given, notices damage, stays within its bound, and serves several processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.responses.store import ResponseStore, clear_store, store_info

LARGE = 10**9


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@settings(deadline=None, max_examples=15)
@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(max_size=40), max_size=12))
def test_what_was_kept_comes_back(answers: dict[bytes, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.sqlite"
        with ResponseStore(path, LARGE) as store:
            store.put(answers)
        with ResponseStore(path, LARGE) as store:
            assert store.get([*answers, b"\0" * 31]) == answers


def test_many_keys_at_once(tmp_path: Path) -> None:
    answers = {key(number): b"%d" % number for number in range(1234)}
    with ResponseStore(tmp_path / "r", LARGE) as store:
        store.put(answers)
        assert store.get([key(number) for number in range(2000)]) == answers
    assert store_info(tmp_path / "r")["answers"] == 1234


def test_a_damaged_answer_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with ResponseStore(path, LARGE) as store:
        store.put({key(1): b"one", key(2): b"two"})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET answer = ? WHERE key = ?", (b"x" * 19, key(1)))
    connection.close()
    with ResponseStore(path, LARGE) as store:
        assert store.get([key(1), key(2)]) == {key(2): b"two"}
    assert store_info(path)["answers"] == 1


@pytest.mark.parametrize(
    "damage", [b"no database at all, but long enough to be read as one" * 40, b"SQLite format 3\0" * 300]
)
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "r"
    path.write_bytes(damage)
    with ResponseStore(path, LARGE) as store:
        assert store.get([key(1)]) == {}
        store.put({key(1): b"one"})
    assert "begun anew" in caplog.text
    with ResponseStore(path, LARGE) as store:
        assert store.get([key(1)]) == {key(1): b"one"}


def test_a_place_that_cannot_be_used_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "r").mkdir()
    with ResponseStore(tmp_path / "r", LARGE) as store:
        store.put({key(1): b"one"})
        assert store.get([key(1)]) == {}
    assert caplog.text.count("cannot be used") == 1


def test_the_least_recently_used_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    now = iter(range(1000, 9000, 1000))
    monkeypatch.setattr("awqbench.responses.store.time.time", lambda: next(now))
    with ResponseStore(path, LARGE) as store:
        for first in (0, 100, 200):
            store.put({key(number): bytes(4000) for number in range(first, first + 100)})
        store.get([key(number) for number in range(100)])
    before = store_info(path)["bytes"]
    with ResponseStore(path, before // 2):
        pass
    after = store_info(path)
    assert after["bytes"] <= before // 2
    with ResponseStore(path, LARGE) as store:
        left = store.get([key(number) for number in range(300)])
    assert set(left) >= {key(number) for number in range(100)}
    assert not set(left) & {key(number) for number in range(100, 200)}


def _writer(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        with ResponseStore(path, LARGE) as store:
            store.put({key(number): b"%d" % number})
            store.get([key(other) for other in range(200)])


def test_processes_share_it(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    writers = [spawned.Process(target=_writer, args=(tmp_path / "r", first)) for first in (0, 20, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with ResponseStore(tmp_path / "r", LARGE) as store:
        assert len(store.get([key(number) for number in range(60)])) == 60
    assert clear_store(tmp_path / "r") > 0
    assert store_info(tmp_path / "r") == {"path": str(tmp_path / "r"), "answers": 0, "bytes": 0, "last_used": None}
