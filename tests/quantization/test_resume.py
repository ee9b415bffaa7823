"""A run killed with SIGKILL goes on and gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from awqbench.errors import UserError
from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.workspace import Workspace

_SCRIPT = """
import os, sys, torch
from pathlib import Path
from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe

folder, out, resume, windows = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume", sys.argv[4]
torch.set_num_threads(1)
done = quantize_model(
    folder, out, Recipe(method="awq+gptq", group_size=32), windows=cut_windows(torch.load(windows), 8, 32),
    resume=resume, progress=lambda done, total, what: print(done, what, flush=True),
)
print("resumed", done["resumed_blocks"], flush=True)
"""


def start(model: Path, out: Path, how: str, windows: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _SCRIPT, str(model), str(out), how, str(windows)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def interrupted(model: Path, out: Path, windows: Any) -> Recipe:
    """Quantize `model` to `out` until its first block is done; returns the recipe."""

    def stop(done: int, total: int, what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    recipe = Recipe(method="awq", group_size=32)
    with pytest.raises(KeyboardInterrupt):
        quantize_model(model, out, recipe, windows=windows, progress=stop)
    return recipe


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_bytes(
    build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path
) -> None:
    model, windows = tmp_path / "model", tmp_path / "windows.pt"
    build("llama", num_hidden_layers=4).save_pretrained(model)
    torch.save(ids, windows)
    whole = start(model, tmp_path / "whole", "fresh", windows)
    assert whole.communicate()[0].splitlines()[-1] == "resumed 0"

    out = tmp_path / "out"
    how = "fresh"
    # In a block, a little into the next one, at once after a third, and while the checkpoint is being written.
    for line, delay in (("1", 0.0), ("2", 0.05), ("3", 0.0), ("4 writing", 0.0)):
        process = start(model, out, how, windows)
        assert process.stdout is not None
        assert any(said.startswith(line) for said in process.stdout)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not out.exists() or line == "4 writing"
        how = "resume"
    if not out.exists():
        last = start(model, out, "resume", windows)
        assert last.communicate()[0].splitlines()[-1] == "resumed 4"
    assert contents(out) == contents(tmp_path / "whole")
    assert not Workspace(out).folder.exists()


def test_unfinished_work_asks_for_resume_and_for_the_same_recipe(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    windows = cut_windows(ids, 4, 32)
    recipe = interrupted(llama_folder, tmp_path / "out", windows)
    with pytest.raises(UserError, match=r"1 blocks of it done.*--resume"):
        quantize_model(llama_folder, tmp_path / "out", recipe, windows=windows)
    with pytest.raises(UserError, match="another recipe"):
        quantize_model(llama_folder, tmp_path / "out", Recipe(group_size=16), windows=windows, resume=True)
    with pytest.raises(UserError, match="another calibration"):
        quantize_model(llama_folder, tmp_path / "out", recipe, windows=cut_windows(ids, 2, 32), resume=True)
    done = quantize_model(llama_folder, tmp_path / "out", recipe, windows=windows, resume=True)
    assert done["resumed_blocks"] == 1
    quantize_model(llama_folder, tmp_path / "whole", recipe, windows=windows)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_unfinished_work_is_no_other_windows_nor_another_configurations(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    model, out = shutil.copytree(llama_folder, tmp_path / "model"), tmp_path / "out"
    windows = cut_windows(ids[:128], 4, 32)
    recipe = interrupted(model, out, windows)
    with pytest.raises(UserError, match="another calibration"):  # the same ids, cut otherwise
        quantize_model(model, out, recipe, windows=cut_windows(ids[:128], 2, 64), resume=True)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    with pytest.raises(UserError, match="another model"):
        quantize_model(model, out, recipe, windows=windows, resume=True)


def test_other_weights_of_the_same_size_and_time_are_another_model(
    llama_folder: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    """Unpacking an archive gives all its files the time that it says: half of each model made one checkpoint."""
    model, out = shutil.copytree(llama_folder, tmp_path / "model"), tmp_path / "out"
    windows = cut_windows(ids[:128], 4, 32)
    recipe = interrupted(model, out, windows)
    weights = model / "model.safetensors"
    before, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="another model"):
        quantize_model(model, out, recipe, windows=windows, resume=True)


_LIMITED = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
"""


def test_a_disk_that_fills_up_leaves_no_checkpoint_and_loses_no_block(
    build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path
) -> None:
    model, windows = tmp_path / "model", tmp_path / "windows.pt"
    build("llama", vocab_size=2000, intermediate_size=512).save_pretrained(model)
    torch.save(ids, windows)
    # Each block's tensors and hidden states are smaller than the limit, the checkpoint with its embedding is larger.
    limited = subprocess.run(
        [sys.executable, "-P", "-c", _LIMITED + _SCRIPT, "300000", str(model), str(tmp_path / "out"), "fresh", windows],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "File too large" in limited.stderr
    assert limited.stdout.splitlines()[-1] == "2 writing"
    assert not (tmp_path / "out").exists()
    process = start(model, tmp_path / "out", "resume", windows)
    assert process.communicate()[0].splitlines()[-1] == "resumed 2"
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(build: Callable[..., Any], ids: torch.Tensor, tmp_path: Path) -> None:
    model, windows = tmp_path / "model", cut_windows(ids, 8, 32)
    build("llama", num_hidden_layers=3).save_pretrained(model)
    recipe = Recipe(method="awq", group_size=32)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done = quantize_model(model, tmp_path / "two", recipe, windows=windows, workers=2)
        torch.set_num_threads(1)
        quantize_model(model, tmp_path / "one", recipe, windows=windows)
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(done["linears"]) == 21
