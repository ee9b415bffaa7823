"""Texts by name, by path, by slice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.sources.texts import resolve_text


def test_pydoc_topics_is_always_there() -> None:
    text = resolve_text("pydoc-topics")
    assert len(text.content) > 400_000
    assert text.label == "pydoc-topics"
    assert len(text.sha256) == 64


@given(st.floats(1, 99))
def test_two_slices_share_nothing_and_lose_nothing(percent: float) -> None:
    cut = f"{percent:.3f}"
    low, high = resolve_text(f"pydoc-topics[:{cut}%]"), resolve_text(f"pydoc-topics[{cut}%:]")
    assert low.content + high.content == resolve_text("pydoc-topics").content
    assert low.content.endswith("\n")
    assert high.label == f"pydoc-topics[{cut}%:]"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.text.txt"
    path.write_text("one\ntwo\n")
    assert resolve_text(str(path)).content == "one\ntwo\n"
    assert resolve_text(str(path)).label == "my.text-" + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert resolve_text(f"{path}[:30%]").content == "one\n"


def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "my.txt"
    path.write_text("one\n")
    before = resolve_text(str(path))
    path.write_text("two\n")
    after = resolve_text(str(path))
    assert (before.content, after.content) == ("one\n", "two\n")
    assert before.label != after.label


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: "pydoc-topic", "did you mean 'pydoc-topics'"),
        (lambda d: str(d / "none.txt"), "no text file at"),
        (lambda d: "pydoc-topics[60%:50%]", "must run upwards"),
        (lambda d: "pydoc-topics[60%:500%]", "must run upwards"),
        (lambda d: _write(d / "empty.txt", b" \n"), "is empty"),
        (lambda d: _write(d / "latin.txt", "né".encode("latin-1")), "as UTF-8"),
    ],
)
def test_mistakes(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        resolve_text(make(tmp_path))


def test_wikitext_is_joined_as_the_protocol_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wikitext-2").mkdir()
    (tmp_path / "wikitext-2" / "wiki.test.raw").write_text(" \n = Title = \n \n First . \n Second . \n")
    monkeypatch.setenv("AWQBENCH_DATA", str(tmp_path))
    # The data set's rows keep their newline, blank rows are empty strings; rows are joined by two newlines.
    assert resolve_text("wikitext2-raw-test").content == "\n\n = Title = \n\n\n\n\n First . \n\n\n Second . \n"


def test_wikitext_without_data_or_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWQBENCH_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="neither in AWQBENCH_DATA"):
        resolve_text("wikitext2-raw-test")


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)
