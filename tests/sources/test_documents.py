"""Calibration sources: where documents begin and end, and how mistakes are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.sources.documents import hub_rows, paragraphs, resolve_documents
from awqbench.sources.texts import resolve_text


def jsonl(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    found = [resolve_documents(jsonl(tmp_path / "d.jsonl", {"text": word})) for word in ("one", "two")]
    assert [documents.items for documents in found] == [("one\n\n",), ("two\n\n",)]
    assert found[0].sha256 != found[1].sha256


@given(st.text(alphabet="ab \n\t", max_size=60))
def test_paragraphs_joined_are_the_text_again(content: str) -> None:
    pieces = paragraphs(content)
    assert "".join(pieces) == content
    assert all(pieces)


def test_a_text_is_cut_at_blank_lines_or_at_line_ends_where_there_are_none() -> None:
    assert paragraphs("one\nstill one\n\n two\n \n\nthree") == ["one\nstill one\n\n", " two\n \n\n", "three"]
    assert paragraphs("one\ntwo\n") == ["one\n", "two\n"]


def test_a_text_source_has_the_hash_of_its_text() -> None:
    found, text = resolve_documents("pydoc-topics[:10%]"), resolve_text("pydoc-topics[:10%]")
    assert (found.label, found.sha256, "".join(map(str, found.items))) == (text.label, text.sha256, text.content)


def test_jsonl_takes_text_messages_or_conversations(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}]
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    source = jsonl(
        tmp_path / "mixed.jsonl", {"text": "A line.\n"}, {"messages": said}, {"conversations": shared}, {"text": " "}
    )
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert resolve_documents(source).items == ("A line.\n\n", talk, talk)


def test_a_field_of_ones_own_and_a_slice_of_the_lines(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "own.jsonl", *({"body": f"number {i}", "text": "no"} for i in range(4)))
    assert resolve_documents(source, "body").items == tuple(f"number {i}\n\n" for i in range(4))
    first, rest = (resolve_documents(f"{source}[{cut}]", "body").items for cut in (":40%", "40%:"))
    assert first + rest == resolve_documents(source, "body").items
    assert first
    assert rest


@pytest.mark.parametrize(
    ("lines", "field", "message"),
    [
        ('{"text": "a"}\nnonsense\n', None, "line 2 of .* is not JSON"),
        ("[1]\n", None, "line 1 of .* holds no object"),
        ('{"body": "a", "id": 1}\n', None, r"no field 'text' or 'messages' or 'conversations' \(it has: body, id\)"),
        ('{"text": "a"}\n', "body", r"no field 'body' \(it has: text\)"),
        ('{"text": 3}\n', None, "neither a text nor a list"),
        ('{"messages": [{"role": "user"}]}\n', None, "no role and content"),
        ('{"messages": ["Hi"]}\n', None, "no role and content"),
        ('{"text": ""}\n{"messages": []}\n', None, "no document that is not empty"),
    ],
)
def test_mistakes_in_jsonl(tmp_path: Path, lines: str, field: str | None, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(lines)
    with pytest.raises(UserError, match=message) as caught:
        resolve_documents(str(path), field)
    assert "\n" not in str(caught.value)


def test_a_text_has_no_fields() -> None:
    with pytest.raises(UserError, match="plain text and has no field 'body'"):
        resolve_documents("pydoc-topics", "body")


@pytest.mark.parametrize("source", ["hub:pile", "hub:a/b:c:d:e", "hub:", "hub:a/b:"])
def test_names_that_are_no_hub_data_set(source: str) -> None:
    with pytest.raises(UserError, match="allowed: hub:OWNER/NAME"):
        resolve_documents(source)


def test_rows_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called OWNER/NAME stands in for the hub: datasets reads both alike."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    jsonl(tmp_path / "owner" / "name" / "train.jsonl", *({"text": f"number {i}"} for i in range(3)))
    monkeypatch.chdir(tmp_path)
    assert hub_rows("owner/name", None, "train") == [
        (f"row {i + 1} of owner/name", {"text": f"number {i}"}) for i in range(3)
    ]
    with pytest.raises(UserError, match=r"cannot get owner/name from the hub: .*test"):
        hub_rows("owner/name", None, "test")
    with pytest.raises(UserError, match="cannot get owner/none from the hub"):
        hub_rows("owner/none", None, "train")


@pytest.mark.parametrize("source", ["hub:owner/name", "hub:owner/name:validation", "hub:owner/name:en:train[:10%]"])
def test_without_a_hub_the_refusal_is_immediate(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from awqbench.sources.hub import hub_refusal

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_refusal.cache_clear()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        resolve_documents(source)
    hub_refusal.cache_clear()
