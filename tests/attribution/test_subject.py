from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from awqbench.attribution.subject import find_subject
from awqbench.errors import UserError
from awqbench.record.files import write_model
from awqbench.record.schema import Manifest


@pytest.fixture
def run(llama: Path, llama_awq: Path, tmp_path: Path) -> Path:
    """A run directory of the model with a checkpoint of `awq`, and another engine on the same weights."""
    spec: dict[str, Any] = {
        "model": {"source": str(llama)},
        "backends": {
            "reference": {"kind": "reference"}, "awq": {"kind": "awq"}, "rtn": {"kind": "rtn"},
            "again": {"kind": "transformers", "weights": "awq"},
        },
        "suites": {"perplexity": {}, "kl": {"kind": "divergence", "text": "wikitext2-raw-test"}},
    }  # fmt: skip
    root = tmp_path / "run"
    manifest = Manifest(awqbench_version="0", created="", spec=spec, spec_hash="", policy_hash="", model={})
    write_model(root / "manifest.json", manifest)
    shutil.copytree(llama_awq, root / "checkpoints" / "awq")
    return root


def test_a_run_says_checkpoint_model_and_text(run: Path, llama: Path) -> None:
    subject = find_subject(run, None, "awq")
    assert subject.checkpoint == run / "checkpoints" / "awq"
    assert (subject.reference, subject.text) == (llama, "wikitext2-raw-test")
    assert subject.place("") == run / "attribution" / "awq.json"
    assert subject.place("bbq-age & sex") == run / "attribution" / "awq-bbq-age_sex.json"
    assert find_subject(run, None, "again").checkpoint == run / "checkpoints" / "awq"


def test_a_backend_without_weights_of_its_own_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"backend 'rtn' of .* has no checkpoint's folder"):
        find_subject(run, None, "rtn")
    with pytest.raises(UserError, match="unknown backend of the run 'gptq'"):
        find_subject(run, None, "gptq")


def test_a_checkpoint_needs_its_reference(llama: Path, llama_awq: Path) -> None:
    subject = find_subject(llama_awq, str(llama), "awq")
    assert (subject.checkpoint, subject.place("")) == (llama_awq, None)
    with pytest.raises(UserError, match="say what it was made from with --reference"):
        find_subject(llama_awq, None, "awq")
