"""Documents become windows: the stream protocol, AWQ's, chat templates."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from awqbench.errors import UserError
from awqbench.quantization.calibrate import cut_windows
from awqbench.sources.calibration import calibration_windows, read_documents, write_documents
from awqbench.sources.documents import Document, paragraphs
from awqbench.sources.models import load_tokenizer

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> PreTrainedTokenizerBase:
    """One token per byte."""
    return load_tokenizer(tiny_llama)


@pytest.fixture
def chatting(tiny_llama: Path) -> PreTrainedTokenizerBase:
    made = load_tokenizer(tiny_llama)
    made.chat_template = TEMPLATE
    return made


def test_a_stream_is_the_text_tokenized_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "".join(f"Paragraph {i}.\n\n" for i in range(40))
    windows, record = calibration_windows(tokenizer, paragraphs(text), samples=3, seq_len=50)
    whole = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert torch.equal(windows.ids, cut_windows(whole, 3, 50).ids)
    assert record == {"protocol": "stream", "chat_template": False, "documents": 40}


def test_documents_as_awq_reads_them(tokenizer: PreTrainedTokenizerBase) -> None:
    documents = ["aaaa\n\n", "  bbb ", "far too long for a window", "cc", " ", "ddddd"]
    order = list(range(len(documents)))
    random.Random(3).shuffle(order)
    kept = [documents[i].strip() for i in order if 0 < len(documents[i].strip()) <= 6]
    windows, record = calibration_windows(tokenizer, documents, protocol="documents", samples=4, seq_len=6, seed=3)
    assert tokenizer.decode(windows.ids.flatten()) == "".join(kept)[:12]
    assert windows.ids.shape == (2, 6)
    assert windows.asked == 4
    assert record["documents_used"] == 4
    assert record["documents_too_long"] == 1


@given(seed=st.integers(0, 9), samples=st.integers(1, 30), seq_len=st.integers(2, 12))
def test_windows_of_documents_are_exact_and_repeatable(
    tokenizer: PreTrainedTokenizerBase, seed: int, samples: int, seq_len: int
) -> None:
    documents = ["x" * (1 + 7 * i % 11) for i in range(30)]
    ask = {"protocol": "documents", "samples": samples, "seq_len": seq_len, "seed": seed}
    try:
        windows, record = calibration_windows(tokenizer, documents, **ask)  # type: ignore[arg-type]
    except UserError:
        return
    assert windows.ids.shape[1] == seq_len
    assert windows.ids.dtype == torch.int64
    assert record["documents_used"] <= samples
    assert len(windows.ids) <= record["documents_used"]
    assert windows.sha256 == calibration_windows(tokenizer, documents, **ask)[0].sha256  # type: ignore[arg-type]


def test_conversations_and_turns_go_through_the_chat_template(chatting: PreTrainedTokenizerBase) -> None:
    documents: list[Document] = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
        "Alone\n\n",
    ]
    windows, _ = calibration_windows(chatting, documents, samples=1, seq_len=36, chat_template=True)
    assert chatting.decode(windows.ids[0]) == "<user>Hi</><assistant>Ho</><user>Alone</>"[:36]
    plain, _ = calibration_windows(chatting, documents, samples=1, seq_len=30)
    assert chatting.decode(plain.ids[0]).endswith("</>Alo")


def test_a_window_as_long_as_the_whole_text(tokenizer: PreTrainedTokenizerBase) -> None:
    windows, _ = calibration_windows(tokenizer, ["y" * 9000], samples=2, seq_len=8192)
    assert windows.ids.shape == (1, 8192)


def test_mistakes(tokenizer: PreTrainedTokenizerBase, chatting: PreTrainedTokenizerBase) -> None:
    talk: list[Document] = [[{"role": "user", "content": "Hi"}]]
    with pytest.raises(UserError, match="no chat template"):
        calibration_windows(tokenizer, talk, samples=1, seq_len=2)
    with pytest.raises(UserError, match="no chat template"):
        calibration_windows(tokenizer, ["Hi"], samples=1, seq_len=2, chat_template=True)
    chatting.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="refuses a conversation: roles must alternate"):
        calibration_windows(chatting, talk, samples=1, seq_len=2)
    with pytest.raises(UserError, match=r"1 of them, 1 are longer.* fewer than one window of 4"):
        calibration_windows(tokenizer, ["abc", "abcdefg"], protocol="documents", samples=8, seq_len=4)
    with pytest.raises(UserError, match="unknown protocol 'strem'; did you mean 'stream'"):
        calibration_windows(tokenizer, ["abc"], protocol="strem", samples=8, seq_len=4)  # type: ignore[arg-type]


def test_documents_survive_the_way_to_another_process(tmp_path: Path) -> None:
    documents: list[Document] = ["né\n\n\u2028", [{"role": "user", "content": "数学"}]]
    write_documents(documents, tmp_path / "documents.jsonl")
    assert read_documents(tmp_path / "documents.jsonl") == documents
