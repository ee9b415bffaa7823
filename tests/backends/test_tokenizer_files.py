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
    (model / "additional_chat_templates").mkdir()
    for name in ("tokenizer.json", "merges.txt", "additional_chat_templates/tools.jinja", "generation_config.json"):
        (model / name).write_text(name)
    with with_tokenizer(str(bare), str(model)) as found:
        template = Path("additional_chat_templates", "tools.jinja")
        texts = {each.name: each.read_text() for each in [*Path(found).iterdir(), found / template] if each.is_file()}
    assert texts == {
        "config.json": "bare", "model.safetensors": "weights", "tokenizer.json": "tokenizer.json",
        "merges.txt": "merges.txt", "tools.jinja": "additional_chat_templates/tools.jinja",
    }  # fmt: skip
    assert not Path(found).exists()
    with with_tokenizer(str(model), str(bare)) as found:
        assert found == str(model)
