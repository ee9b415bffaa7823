"""Do other engines load this project's checkpoints, and do they compute what it computes?

Each engine runs in an environment of its own; what it says is held against this project's packed kernels in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import material
import torch
from cost import measure
from torch import Tensor

from awqbench.environments import create_command, interpreter_of
from awqbench.formats.load import load_quantized
from awqbench.record.files import write_atomic
from awqbench.sources.models import resolve_model

HERE = Path(__file__).resolve().parent
PROMPT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Engine:
    """A runner, the environment it needs, the precision of its activations and the formats it reads."""

    label: str
    runner: str
    environment: str
    dtype: str
    formats: tuple[str, ...]


ENGINES = (
    Engine("transformers + compressed-tensors", "transformers", "llmcompressor", "float32", ("compressed-tensors",)),
    # What sixteen bits alone do, for vLLM's sake.
    Engine("transformers + compressed-tensors", "transformers", "llmcompressor", "bfloat16", ("compressed-tensors",)),
    Engine("transformers + gptqmodel", "transformers", "gptqmodel", "float16", ("autoawq",)),
    Engine("vLLM, CPU build", "vllm", "vllm", "bfloat16", ("autoawq", "compressed-tensors")),
)
HEAD = "| checkpoint | engine | version | activations | same likeliest token | mean KL | greedy tokens equal |"


def main() -> None:
    """Ask every engine about every checkpoint it should read, and print a table."""
    asked = _arguments()
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(asked.threads)
    ids = material.token_ids(resolve_model(asked.model).path, asked.data / "wiki.test.tokens")[:PROMPT_TOKENS]
    write_atomic(out / "prompt.json", json.dumps(ids.tolist()))
    lines, results = [HEAD, "|" + "---|" * 7], []
    for checkpoint in asked.checkpoints:
        found = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["quantization_config"]
        layout = {"awq": "autoawq"}.get(found["quant_method"], found["quant_method"])
        reference = _Reference.of(checkpoint, ids)
        for engine in (engine for engine in ENGINES if layout in engine.formats):
            row = _ask(engine, checkpoint, out, asked) | {"checkpoint": checkpoint.name}
            if "top" in row:
                row |= reference.compare(row.pop("top"), row["continuation"])
            results.append(row)
            lines.append(_line(row))
            print(lines[-1], flush=True)
    write_atomic(out / "interop.json", json.dumps(results, indent=2) + "\n")
    write_atomic(out / "table.md", "\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class _Reference:
    log_probs: Tensor  # float32 [positions, vocabulary]
    continuation: list[int]

    @classmethod
    def of(cls, checkpoint: Path, ids: Tensor) -> _Reference:
        """This project's own answer."""
        model = load_quantized(checkpoint)
        with torch.inference_mode():
            log_probs = model(ids.unsqueeze(0)).logits[0, :-1].float().log_softmax(-1)
            start = ids[: len(ids) // 4].unsqueeze(0)
            whole = model.generate(start, do_sample=False, min_new_tokens=16, max_new_tokens=16)
        return cls(log_probs, whole[0, start.shape[1] :].tolist())

    def compare(self, top: list[dict[str, float]], continuation: list[int]) -> dict[str, Any]:
        """Agreement; the divergence counts the tokens that the engine names singly and all others as one."""
        same, total = 0, 0.0
        for ours, theirs in zip(self.log_probs.double(), top, strict=True):
            tokens = torch.tensor([int(token) for token in theirs])
            named = torch.tensor(list(theirs.values()), dtype=torch.float64)
            same += int(tokens[named.argmax()] == ours.argmax())
            p, q = _with_rest(ours[tokens].exp()), _with_rest(named.exp())
            total += (p * (p.log() - q.log())).sum().item()
        equal = sum(a == b for a, b in zip(self.continuation, continuation, strict=True))
        return {"same": same / len(top), "kl": total / len(top), "equal": equal, "asked": len(continuation)}


def _with_rest(probabilities: Tensor) -> Tensor:
    rest = (1 - probabilities.sum()).clamp(min=1e-12)
    return torch.cat([probabilities.clamp(min=1e-30), rest[None]])


def _ask(engine: Engine, checkpoint: Path, out: Path, asked: argparse.Namespace) -> dict[str, Any]:
    python = interpreter_of(engine.environment)
    row = {"engine": engine.label, "dtype": engine.dtype}
    if python is None:
        return row | {"error": f"no environment: {create_command(engine.environment)}"}
    stem = f"{checkpoint.name}-{engine.runner}-{engine.environment}-{engine.dtype}"
    answer, log = out / f"{stem}.json", out / f"{stem}.log"
    answer.unlink(missing_ok=True)
    command = [str(python), str(HERE / f"engine_{engine.runner}.py"), str(checkpoint), str(out / "prompt.json")]
    env = os.environ | {"OMP_NUM_THREADS": str(asked.threads), "HF_HUB_OFFLINE": "1"}
    cost = measure([*command, str(answer), "--dtype", engine.dtype], log, asked.deadline, env)
    if answer.is_file():
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return row | found
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "Error" in line]
    return row | {"exit": cost.exit, "error": (lines or [f"exit status {cost.exit}, no error in its log"])[-1][-300:]}


def _line(row: dict[str, Any]) -> str:
    cells = [row["checkpoint"], row["engine"], row.get("version", ""), row["dtype"]]
    if "error" in row:
        cells += ["", "", f"failed: {row['error']}"]
    else:
        cells += [f"{row['same']:.1%}", f"{row['kl']:.1e}", f"{row['equal']} of {row['asked']}"]
    return "| " + " | ".join(cells) + " |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("AWQBENCH_DATA")
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--model", default="demo", help="whose tokenizer makes the prompt")
    parser.add_argument("--data", type=Path, default=Path(data) / "wikitext-2" if data else None)
    parser.add_argument("--out", type=Path, default=Path("runs") / "interop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=900, help="seconds for each")
    asked = parser.parse_args()
    if asked.data is None:
        sys.exit("no text: set AWQBENCH_DATA, or give --data a folder with wiki.test.tokens")
    return asked


if __name__ == "__main__":
    main()
