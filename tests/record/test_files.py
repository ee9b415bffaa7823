"""Atomic writing and content keys."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.record.files import content_key, write_atomic
from awqbench.record.layout import RunDirectory, move_into_place


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_keys_do_not_depend_on_order_but_on_content() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})


def test_folders_move_over_older_ones(tmp_path: Path) -> None:
    place = tmp_path / "cells" / "a"
    for content in ("one", "two"):
        made = tmp_path / "unfinished"
        made.mkdir()
        (made / "x").write_text(content)
        move_into_place(made, place)
    assert (place / "x").read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells"]


def test_only_one_run_works_in_a_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.unfinished("left-by-a-kill").mkdir(parents=True)
    with run.lock():
        assert not (run.root / "unfinished").exists()
        with pytest.raises(UserError, match="another awqbench"), run.lock():
            raise AssertionError("two runs in one directory")
    with run.lock():
        pass


def test_a_file_system_without_locks_is_no_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunDirectory(tmp_path / "run").lock():
        assert "cannot be locked (Function not implemented)" in caplog.text


def test_a_place_that_is_no_run_is_refused_and_a_killed_start_is_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.refuse_foreign()
    run.root.mkdir()
    (run.root / ".lock").touch()
    (run.root / ".manifest.json.x").touch()
    run.refuse_foreign()
    assert run.is_empty()
    (run.root / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        run.refuse_foreign()
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(run.root / "thesis.tex").refuse_foreign()
