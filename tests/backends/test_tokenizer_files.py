"""Checkpoints without a tokenizer."""

from __future__ import annotations

from pathlib import Path

from awqbench.backends.tokenizer_files import has_tokenizer, with_tokenizer


def test_a_folder_without_one_is_lent_the_models(tmp_path: Path) -> None:
    model, bare = tmp_path / "model", tmp_path / "bare"
    for folder in (model, bare):
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)
    (bare / "model.safetensors").write_text("weights")
    assert not has_tokenizer(bare)
    with with_tokenizer(str(bare), "") as found:
        assert found == str(bare)
    for name in ("tokenizer.json", "merges.txt"):
        (model / name).write_text(name)
    with with_tokenizer(str(bare), str(model)) as found:
        texts = {file.name: file.read_text() for file in Path(found).iterdir()}
    assert texts == {
        "config.json": "bare", "model.safetensors": "weights", "tokenizer.json": "tokenizer.json",
        "merges.txt": "merges.txt",
    }  # fmt: skip
    assert not Path(found).exists()
    with with_tokenizer(str(model), str(bare)) as found:
        assert found == str(model)
