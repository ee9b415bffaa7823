"""`awqbench cache`: what is there, and gone when cleared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqbench.cli import app
from awqbench.responses.store import ResponseStore, store_path


def test_info_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path))
    assert "0 answers" in CliRunner().invoke(app, ["cache", "info"]).output
    with ResponseStore(store_path(), 10**9) as store:
        store.put({bytes(32): b"answer"})
    found = json.loads(CliRunner().invoke(app, ["cache", "info", "--json"]).output)
    assert found["path"] == str(tmp_path / "responses" / "responses.sqlite")
    assert found["answers"] == 1
    assert found["bytes"] > 0
    assert "last used" in CliRunner().invoke(app, ["cache", "info"]).output
    assert "removed" in CliRunner().invoke(app, ["cache", "clear"]).output
    assert not store_path().exists()


def test_a_use_nobody_knows(tmp_path: Path) -> None:
    spec = tmp_path / "bench.toml"
    spec.write_text("[suites.tasks]\n")
    done = CliRunner().invoke(app, ["run", str(spec), "--cache", "everything"])
    assert "cache.responses" in str(done.exception)
    assert "'off', 'reference' or 'all'" in str(done.exception)


def test_a_store_that_is_no_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQBENCH_CACHE", str(tmp_path))
    store_path().write_bytes(b"no database " * 100)
    assert "damaged" in CliRunner().invoke(app, ["cache", "info"]).output
