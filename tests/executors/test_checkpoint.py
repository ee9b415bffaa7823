"""What is left of a quantization that did not end well."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.executors import checkpoint
from awqbench.executors.child import DiskFull, run_child
from awqbench.job import Job
from awqbench.record.layout import RunDirectory

FULL = """
import sys
from awqbench.executors.child import serve


def work(request, progress):
    progress(1, 2, "a block")
    with open("/dev/full", "w") as stream:
        stream.write("x")


sys.exit(serve(work))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_apart_from_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "always_full.py").write_text(FULL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen: list[tuple[int, int, str]] = []
    with pytest.raises(DiskFull, match=r"the disk is full: .*No space left"):
        run_child("always_full", "the child", {}, tmp_path / "log.txt", lambda *told: seen.append(told))
    assert seen == [(1, 2, "a block")]


@pytest.mark.parametrize(("error", "kept"), [(DiskFull("the disk is full"), True), (UserError("no such layer"), False)])
def test_finished_blocks_outlive_a_full_disk(
    error: UserError, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = RunDirectory(tmp_path / "run"), Job("checkpoint/awq", "checkpoint", "awq", None, "candidate", "k" * 64)
    block = run.scratch(job.key) / "checkpoint.partial" / "blocks" / "00000.json"

    def quantizer(*_: object) -> None:
        block.parent.mkdir(parents=True)
        block.touch()
        raise error

    monkeypatch.setattr(checkpoint, "run_quantizer", quantizer)
    monkeypatch.setattr(checkpoint, "request", lambda *_: {})
    spec = SimpleNamespace(
        model=SimpleNamespace(trust_remote_code=False, device="cpu"), threads=1, seed=0, quantize_for=lambda name: None
    )
    plan: Any = SimpleNamespace(spec=spec, model=SimpleNamespace(path=tmp_path, origin="path", label="m"))
    with pytest.raises(type(error)):
        checkpoint.make_checkpoint(plan, job, run, tmp_path, lambda done, total: None)
    assert block.exists() == kept
