from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from awqbench.errors import UserError
from awqbench.modeling.skeleton import skeleton
from awqbench.quantization.blocks import linears_of
from awqbench.quantization.memory import Needs, available_memory, estimate, in_words
from awqbench.quantization.recipe import Recipe

_SCRIPT = """
import json, sys, torch
from pathlib import Path
from awqbench.quantization.calibrate import cut_windows
from awqbench.quantization.pipeline import quantize_model
from awqbench.quantization.recipe import Recipe

torch.set_num_threads(1)
ids = torch.randint(3, 500, (2048,), generator=torch.Generator().manual_seed(0))
made = quantize_model(
    Path(sys.argv[1]), Path(sys.argv[2]), Recipe(method=sys.argv[3], group_size=64), windows=cut_windows(ids, 4, 128)
)
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([peak, made["needs"]["peak"]]))
"""


def folder(path: Path, layers: int) -> Path:
    """A model of 9.4 MB a layer."""
    config = LlamaConfig(
        vocab_size=512, hidden_size=384, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def peak(model: Path, method: str) -> tuple[int, int]:
    """Measured and foreseen, in bytes."""
    command = [sys.executable, "-P", "-c", _SCRIPT, str(model), str(model) + "-out", method]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    measured, foreseen = result.stdout.splitlines()[-1].strip("[]").split(",")
    return int(measured), int(foreseen)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path) -> None:
    few, few_foreseen = peak(folder(tmp_path / "8", 8), "rtn")
    many, many_foreseen = peak(folder(tmp_path / "32", 32), "rtn")
    # 24 blocks more are 226 MB in float32; the same work twice differs by up to 36 MB of an allocator's holes.
    assert many - few < 226e6 / 3
    assert abs(many_foreseen - few_foreseen) < 10e6
    assert few <= few_foreseen <= 1.6 * few


@pytest.mark.slow
def test_what_compensating_needs_is_foreseen(tmp_path: Path) -> None:
    measured, foreseen = peak(folder(tmp_path / "model", 2), "awq+gptq")
    assert measured <= foreseen <= 1.8 * measured


def test_the_estimate_grows_with_the_block_and_not_with_their_number(tmp_path: Path) -> None:
    def needs(layers: int, recipe: Recipe) -> Needs:
        shape = skeleton(folder(tmp_path / f"{layers}", layers))
        names = [name for name in linears_of(shape, "") if "lm_head" not in name]
        return estimate(shape, "model.layers", names, recipe, torch.float32, 1024, sensitivity=False)

    two, four = needs(2, Recipe()), needs(4, Recipe())
    assert abs(two.peak - four.peak) < 50e6  # the process itself may grow in between
    assert four.checkpoint > 1.5 * two.checkpoint
    assert needs(2, Recipe(method="awq+gptq")).peak > two.peak


def test_too_small_a_machine_is_refused_with_the_reason(tmp_path: Path) -> None:
    small = Needs({"process": 10, "embeddings": 5, "searching and rounding": 100}, 1, 1)
    small.refuse(None, tmp_path / "not" / "yet")
    with pytest.raises(UserError, match=r"needs about 110 B.*most of it for searching and rounding.*: 50 B"):
        small.refuse(50, tmp_path)
    with pytest.raises(UserError, match="the machine has free"):
        Needs({"process": 0, "embeddings": 2 * available_memory()}, 0, 0).refuse(None, tmp_path)
    with pytest.raises(UserError, match="of disk"):
        Needs({"process": 0, "embeddings": 0}, 10**18, 0).refuse(None, tmp_path)


def test_what_unfinished_work_has_taken_already_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed quantization needs the rest alone: with what it had written the disk seemed too small for it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40))
    needs = Needs({"process": 0, "embeddings": 0}, 60, 20)
    with pytest.raises(UserError, match="about 80 B of disk"):
        needs.refuse(None, tmp_path)
    with pytest.raises(UserError, match="about 50 B more of disk"):
        needs.refuse(None, tmp_path, there=30)
    needs.refuse(None, tmp_path, there=40)
    needs.refuse(None, tmp_path, there=100)


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/pod\n", {"pod/memory.max": "1000000", "pod/memory.current": "700000"}, 340000),
        ("0::/pod\n", {"memory.max": "max", "pod/memory.max": "1000000", "pod/memory.current": "1100000"}, 0),
        ("0::/pod\n", {"pod/memory.max": "max", "pod/memory.current": "700000"}, None),
        (
            "4:memory:/docker/1f\n2:cpu:/docker/1f\n",
            {"memory/memory.limit_in_bytes": "1000000", "memory/memory.usage_in_bytes": "200000"},
            870000,
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "1"},
            None,
        ),
    ],
)
def test_a_containers_limit_is_no_more_than_it_says(
    own: str, files: dict[str, str], left: int | None, tmp_path: Path
) -> None:
    """Else a quantization that was said to fit is killed after hours."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).with_name("memory.stat").write_text("inactive_file 40000\ntotal_inactive_file 70000\n")
    (tmp_path / "own").write_text(own)
    found = available_memory(tmp_path, tmp_path / "own")
    assert found == left if left is not None else found > 10**7


def test_sizes_in_words() -> None:
    assert [in_words(size) for size in (0, 999, 1500, 2.5e9, 7e12)] == ["0 B", "999 B", "1.5 kB", "2.5 GB", "7 TB"]
