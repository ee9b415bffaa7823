"""What the user can mend: one clear line, exit status 2, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]


def bert(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))


def truncated(source: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(source, folder)
        shard = folder / "model.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1000])

    return make


def refused(awqbench: Command, spec: Path, out: Path, *mentions: str) -> None:
    done = awqbench("run", spec, "--out", out)
    assert done.returncode == 2, (done.returncode, done.stderr)
    said = [line for line in done.stderr.splitlines() if not line.startswith("built ")]  # the kernel, the first time
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for mention in mentions:
        assert mention in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        (("window = 96", "windw = 96"), ("suites.perplexity.windw", "did you mean")),
        (("group_size = 32", "group_size = 48"), ("48",)),
        (('text = "pydoc-topics[50%:]"\nwindow = 96', 'text = "empty.txt"\nwindow = 96'), ("empty.txt", "empty")),
        (("[suites.tasks]", '[suites.tasks]\ntasks = ["awqbench_commonplac"]'), ("awqbench_commonplac",)),
        (("[suites.fairness]", '[suites.fairness]\nsets = ["counterfactul"]'), ("did you mean",)),
        (("[quantize]", '[quantize]\nmethod = "gtpq"'), ("quantize.method", "'awq+gptq'")),
        (("[quantize]", '[quantize]\nmax_memory = "1MB"'), ("memory", "1 MB")),
        (("[quantize]", "[quantize]\nchat_template = true"), ("no chat template",)),
        (("seq_len = 64", "seq_len = 4000"), ("context",)),
    ],
)
def test_in_the_spec(
    awqbench_here: Command, spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str], mentions: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    text = spec_file.read_text()
    assert change[0] in text
    spec = tmp_path / "bench.toml"
    spec.write_text(text.replace(*change))
    refused(awqbench_here, spec, tmp_path / "run", *mentions)


def test_in_the_model(awqbench_here: Command, spec_file: Path, tiny_llama: Path, tmp_path: Path) -> None:
    text = spec_file.read_text()
    cases: list[tuple[str, Callable[[Path], object], str]] = [
        ("missing", lambda folder: None, "no model folder"),
        ("encoder", bert, "no causal language model"),
        ("truncated", truncated(tiny_llama), "model.safetensors"),
    ]
    for name, make, message in cases:
        make(tmp_path / name)
        spec = tmp_path / f"{name}.toml"
        spec.write_text(text.replace(str(tiny_llama), str(tmp_path / name)))
        refused(awqbench_here, spec, tmp_path / f"run-{name}", message)


def test_a_folder_that_is_no_run(awqbench_here: Command, spec_file: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    for arguments in (
        ("run", spec_file, "--out", tmp_path),
        ("report", tmp_path),
        ("gate", tmp_path),
        ("compare", tmp_path),
    ):
        done = awqbench_here(*arguments)
        assert done.returncode == 2
        assert "no run directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_wrong_options_and_help(awqbench: Command) -> None:
    assert awqbench("run", "--nonesuch").returncode == 2
    assert awqbench("quantize", "--help").returncode == 0
