"""Quantizers side by side: the same model, calibration windows, bits and group size for all, and one judge.

Each runs in a fresh process of its own environment. Results are kept in OUT/results.json; what is already there is not
run again, and OUT/table.md shows it. The texts are WikiText-2's tokenised validation (calibration) and test files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import material
import torch
from contenders import CONTENDERS, OURS, Contender
from cost import measure
from judge import Judge
from table import markdown

from awqbench.environments import create_command, interpreter_of
from awqbench.fingerprint import folder_hash, model_hash
from awqbench.record.environment import hardware
from awqbench.record.files import write_atomic
from awqbench.sources.models import resolve_model

HERE = Path(__file__).resolve().parent
PACKAGES = ("awqbench", "llmcompressor", "compressed-tensors", "autoawq", "gptqmodel", "torch", "transformers")
VERSIONS = """
import importlib.metadata as m, json, sys
found = {d.metadata["Name"].lower(): d.version for d in m.distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""


def main() -> None:
    """Run what is asked for and not yet there."""
    asked = _arguments()
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(asked.threads)
    found = resolve_model(asked.model).path
    results = _load(out / "results.json", [model_hash(found), folder_hash(asked.data)])
    model_dir = material.readable_by_all(found, out / "model")
    calibration = material.token_ids(model_dir, asked.data / "wiki.valid.tokens")
    test = material.test_windows(material.token_ids(model_dir, asked.data / "wiki.test.tokens"))
    judge: Judge | None = None
    for draw in range(asked.draws):
        for name in asked.only or CONTENDERS:
            contender = CONTENDERS[name]
            key = f"{name} w{asked.bits} g{asked.group_size} draw {draw} of {asked.draws}"
            folder = out / "runs" / key.replace(" ", "-")
            python = Path(sys.executable) if contender.environment == OURS else interpreter_of(contender.environment)
            if key in results["rows"]:
                row = results["rows"][key]
            elif python is not None:
                row = _run(contender, python, model_dir, calibration, folder, draw, asked)
            else:
                print(f"{contender.label}: left out, it has no environment: {create_command(contender.environment)}")
                continue
            if row["exit"] == 0 and "kl" not in row:
                judge = judge or Judge(model_dir, test)
                results["reference"] = asdict(judge.full_precision())
                row |= asdict(judge.judge(folder / "checkpoint"))
            results["rows"][key] = row
            results["machine"] = hardware()
            write_atomic(out / "results.json", json.dumps(results, indent=2) + "\n")
            print(f"{key}: {row}", flush=True)
    text = markdown(results)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def _run(
    contender: Contender, python: Path, model_dir: Path, ids: torch.Tensor, folder: Path, draw: int,
    asked: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    windows = material.calibration_windows(ids, contender.windows, contender.tokens, draw, asked.draws)
    (folder / "windows.json").write_text(json.dumps(windows.tolist()), encoding="utf-8")
    command = [str(python), str(HERE / f"run_{contender.environment}.py"), str(model_dir), str(folder / "windows.json")]
    command += [str(folder / "checkpoint"), "--method", contender.method, "--bits", str(asked.bits)]
    command += ["--group-size", str(asked.group_size)]
    threads = str(asked.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    cost = measure(command, folder / "log.txt", asked.deadline, env)
    row = asdict(contender) | asdict(cost) | {"bits": asked.bits, "group_size": asked.group_size, "draw": draw}
    row |= {"threads": asked.threads, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    row["versions"] = json.loads(subprocess.check_output([str(python), "-P", "-c", VERSIONS, *PACKAGES]))
    if cost.exit != 0:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        late = f"stopped after {asked.deadline:.0f} s; " if cost.wall_s >= asked.deadline else ""
        row["error"] = f"{late}{lines[-1][-300:]}"
    return row


def _load(path: Path, of: list[str]) -> dict[str, Any]:
    """What is there already. Ends the program where that is `of` another model, or other texts."""
    if not path.is_file():
        return {"of": of, "rows": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.setdefault("of", of) != of:
        sys.exit(f"{path} holds figures of another model, or of other texts: choose another --out")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("AWQBENCH_DATA")
    parser.add_argument("--model", default="demo", help="a folder or a packaged name")
    parser.add_argument("--data", type=Path, default=Path(data) / "wikitext-2" if data else None)
    parser.add_argument("--out", type=Path, default=Path("runs") / "quantizers")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--draws", type=int, default=1, help="calibration draws: shifts of the window grid")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=3600, help="seconds for each")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("no texts: set AWQBENCH_DATA, or give --data a folder with wiki.valid.tokens and wiki.test.tokens")
    return asked


if __name__ == "__main__":
    main()
