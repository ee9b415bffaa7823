"""Models by path, by packaged name, by hub id without a hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.fingerprint import model_hash
from awqbench.sources.made import made_folder
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.sources.tiny import make_tiny


def test_a_folder(tiny_llama: Path) -> None:
    found = resolve_model(str(tiny_llama))
    assert found.path == tiny_llama
    assert found.origin == "path"


def test_a_folder_below_home(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    assert resolve_model(f"~/{tiny_llama.name}").path == tiny_llama


def test_two_processes_may_make_a_model_at_once(tmp_path: Path) -> None:
    """The first to be done may be reading its folder when the second is."""

    def make(out: Path, who: str) -> None:
        out.mkdir()
        (out / "config.json").write_text(who)

    def slowly(out: Path) -> None:
        assert made_folder(tmp_path / "model", lambda out: make(out, "first")).is_dir()
        make(out, "second")

    assert (made_folder(tmp_path / "model", slowly) / "config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_made_folder_that_lacks_its_files_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").touch()
    made_folder(tmp_path / "model", make_tiny)
    assert (tmp_path / "model" / "config.json").is_file()


def test_tiny_random_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    make_tiny(tmp_path / "a", num_hidden_layers=1)
    make_tiny(tmp_path / "b", num_hidden_layers=1)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_byte_tokenizer_round_trips(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    text = "Zażółć gęślą jaźń — 数学 🙂\n\ttabs"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.encode())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/none/at/all", "no model folder at"),
        ("./none", "no model folder"),
        ("some/model", "HF_HUB_OFFLINE is set"),
        ("gpt0", "hub"),
    ],
)
def test_missing_models(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=message):
        resolve_model(source)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json"),
        ("{", "not a JSON file"),
        (
            json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}),
            "no causal language model but BertForMaskedLM",
        ),
        (json.dumps({"model_type": "t5"}), "no causal language model but model_type 't5'"),
        (json.dumps({"model_type": "nonesuch"}), "no causal language model"),
    ],
)
def test_folders_that_hold_no_causal_lm(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        resolve_model(str(tmp_path))


def test_the_hash_sees_weights_config_and_tokenizer(tmp_path: Path) -> None:
    make_tiny(tmp_path / "m", num_hidden_layers=1)
    first = model_hash(tmp_path / "m")
    assert model_hash(tmp_path / "m") == first
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    second = model_hash(tmp_path / "m")
    assert second != first
    make_tiny(tmp_path / "n", seed=1, num_hidden_layers=1)
    assert model_hash(tmp_path / "n") not in {first, second}
