"""Is the hub there, and what is said when it gives nothing."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from awqbench.errors import UserError, first_line
from awqbench.sources.documents import hub_rows
from awqbench.sources.hub import hub_refusal
from awqbench.sources.models import load_tokenizer


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    hub_refusal.cache_clear()
    yield monkeypatch
    hub_refusal.cache_clear()


def test_a_mirror_is_asked_at_its_own_port(no_proxy: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        no_proxy.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_refusal() is None


def test_a_data_set_that_is_a_script_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "name.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot get owner/name from the hub: Dataset scripts"):
        hub_rows("owner/name", None, "test")


def test_a_tokenizer_of_a_newer_library_is_refused_in_a_line(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "NotYet"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"cannot load the tokenizer in .*model"):
        load_tokenizer(folder)


def test_an_error_without_words_is_called_by_its_name() -> None:
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError(" one\ntwo")) == "one"
