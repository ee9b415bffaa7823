"""The client in docs/worker.md is a client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from awqbench.worker.ops import PARTS, RESULTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "worker.md").read_text(encoding="utf-8")


def test_the_example_runs(plugin_folder: Path, tiny_llama: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    target = "awqbench.backends.reference:ReferenceBackend"
    assert target in example
    script = tmp_path / "client.py"
    script.write_text(f"MODEL = {str(tiny_llama)!r}\n" + example.replace(target, "awqbench_trouble.engine:Trouble"))
    done = subprocess.run(
        [sys.executable, "-P", script], env={**os.environ, "PYTHONPATH": str(plugin_folder)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("scoring")]
    assert "'version': 2" in said[0]
    assert said[1] == "['score']"
    assert said[2].startswith("part [-")
    assert said[3:] == ["result None", "0"]


def test_every_operation_is_documented() -> None:
    table = PAGE.split("## Operations")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {*RESULTS, *PARTS}
