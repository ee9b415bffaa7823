import json
import logging

import gguf
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from awqbench.errors import UserError
from awqbench.formats.gguf.tokenizer import write_tokenizer

LLAMA3_REGEX = PRETOKENIZE_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")


@pytest.fixture
def written(tmp_path):
    """Metadata of a file whose tokenizer came from a tokenizer.json."""

    def write(state, pre=None, vocabulary=270):
        (tmp_path / "tokenizer.json").write_text(state if isinstance(state, str) else json.dumps(state))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
        notes = write_tokenizer(writer, tmp_path, vocabulary, pre)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
        return {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in fields.items()}, notes

    return write


@pytest.mark.parametrize(
    ("split", "name"),
    [("gpt-2", "gpt-2"), ("smollm", "smollm"), (PRETOKENIZE_REGEX, "qwen2"), (LLAMA3_REGEX, "llama-bpe")],
)
def test_byte_level(written, byte_pair, split, name):
    tokenizer = byte_pair(split)
    found, notes = written(tokenizer.to_str())
    assert (found["model"], found["pre"], notes) == ("gpt2", name, [])
    assert found["tokens"][:3] == ["<s>", "</s>", "<tool>"]
    assert found["tokens"][tokenizer.token_to_id("Ġthe")] == "Ġthe"
    assert found["tokens"][-1] == "[PAD269]"
    types = [gguf.TokenType(kind).name for kind in found["token_type"]]
    assert types[:4] == ["CONTROL", "CONTROL", "USER_DEFINED", "NORMAL"]
    assert types[-1] == "UNUSED"
    assert found["merges"][1] == "he r"
    assert (found["bos_token_id"], found["eos_token_id"], found["add_bos_token"]) == (0, 1, False)


def test_an_unknown_split_needs_a_name(written, byte_pair):
    state = byte_pair(r"\d+").to_str()
    with pytest.raises(UserError, match=r"unknown pre-tokenizer .*smollm.*--pre"):
        written(state)
    assert written(state, pre="tekken")[0]["pre"] == "tekken"


def test_sentencepiece_style(written):
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x00>": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7, "▁ab": 8}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁a", "b")], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    found, _ = written(tokenizer.to_str(), vocabulary=9)
    assert (found["model"], found["pre"], found["add_space_prefix"]) == ("llama", "default", True)
    types = [gguf.TokenType(kind).name for kind in found["token_type"]]
    assert types == ["UNKNOWN", "CONTROL", "CONTROL", "BYTE", *["NORMAL"] * 5]
    assert found["scores"][7] == 0
    assert found["scores"][8] == -1
    assert found["scores"][7] > found["scores"][8] > found["scores"][5]
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    assert written(tokenizer.to_str(), vocabulary=9)[0]["add_space_prefix"] is False


def test_a_tokenizer_of_bytes_alone_gets_a_merge_that_never_happens(written):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    lone = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    lone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (merge,) = written(lone.to_str())[0]["merges"]
    assert all(len(side) > 1 and side not in letters for side in merge.split(" "))


def test_what_cannot_be_carried(written, byte_pair, tmp_path):
    with pytest.raises(UserError, match=r"has token 263, config.json a vocabulary of 200"):
        written(byte_pair().to_str(), vocabulary=200)
    with pytest.raises(UserError, match=r"type WordLevel .allowed for GGUF: BPE"):
        written(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer that GGUF can carry"):
        write_tokenizer(gguf.GGUFWriter(tmp_path / "y.gguf", "llama"), tmp_path, 9)


@pytest.mark.demo
@pytest.mark.slow
def test_the_demo_models_metadata_agrees_with_the_file_it_came_from(tmp_path, caplog):
    from awqbench.errors import BackendUnavailable
    from awqbench.formats.gguf.export import export_gguf
    from awqbench.sources.demo import demo_folder, demo_gguf

    try:
        folder = demo_folder()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with caplog.at_level(logging.ERROR):
        export_gguf(folder, tmp_path / "demo.gguf")
    ours, theirs = (gguf.GGUFReader(file) for file in (tmp_path / "demo.gguf", demo_gguf()))
    described = {"general.name", "general.file_type"}
    for key, field in theirs.fields.items():
        if key.startswith(("tokenizer.", "llama.")) or key in ("general.architecture", "general.quantization_version"):
            assert ours.fields[key].contents() == field.contents(), key
    assert described <= ours.fields.keys()
    shapes = [{tensor.name: tensor.shape.tolist() for tensor in reader.tensors} for reader in (ours, theirs)]
    assert shapes[0] == shapes[1]
