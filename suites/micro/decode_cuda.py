r"""Tokens per second of a model of Llama-3-8B's shape on a GPU: 4-bit and 16-bit weights, with and without CUDA graphs.

    python suites/micro/decode_cuda.py --budget 500 --json out.json

Weights are random and made on the device; nothing is downloaded. All contestants live in one process and take turns,
one batch of prompts each, so that a drift of the clocks meets them alike:

    packed, fused graph        4 bits, groups of 128, static cache, five launches a layer in one graph
    packed, unfused graph      the same weights and cache, transformers' forward pass with merged linears in a graph
    float16, CUDA graph        dense weights in the same static cache and graph
    float16, transformers      dense weights through transformers' forward pass and growing cache, eager

A ratio is the median over rounds of two contestants' ratio within a round, with a percentile bootstrap over rounds.
MBU: bytes that a step must read (weights without the input embedding, keys and values of the average context) over its
time, by the memory's nominal bandwidth and by the read bandwidth measured here first. Padding that a static cache reads
beside them is no use and is not counted. Exit status 2 and one line where there is no GPU or something is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from awqbench.backends.device import pick_device
from awqbench.backends.torch_engine import TorchEngine, weight_bytes
from awqbench.errors import UserError
from awqbench.kernelbench import machine
from awqbench.kernelbench.ceilings import measure_ceilings
from awqbench.ops import QuantizedLinear
from awqbench.quantization.tensor import QuantizedTensor
from awqbench.runtime.attach import Runtime, attach, static_runtime
from awqbench.runtime.cuda_graph import CudaGraphs

OURS = "packed, fused graph"
LLAMA3_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
TINY = {
    **LLAMA3_8B, "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


class Contestant(TorchEngine):
    """A model in memory with a runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.model, self.device, self.runtime = runtime.model, runtime.device, runtime


def dense_model(sizes: dict[str, Any], device: torch.device, layers: int | None = None) -> Any:
    """A random float16 Llama on the device."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**sizes | ({} if layers is None else {"num_hidden_layers": layers}))
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float16).eval().requires_grad_(False)


def random_linear(linear: nn.Linear, group_size: int, device: torch.device) -> QuantizedLinear:
    """Random codes of a spread that keeps float16 activations small."""
    shape = linear.out_features, linear.in_features // group_size
    codes = torch.randint(0, 16, (linear.out_features, linear.in_features), dtype=torch.uint8, device=device)
    zeros = torch.randint(6, 10, shape, dtype=torch.uint8, device=device)
    scales = (torch.rand(shape, device=device) * 2e-3 + 3e-3).half()
    quantized = QuantizedTensor(codes, scales, zeros, 4, group_size)
    return QuantizedLinear(quantized, dtype=torch.float16, device=device, kernel="cuda")


def packed_model(sizes: dict[str, Any], device: torch.device, group_size: int) -> Any:
    """The same model with packed layers; embedding and head stay in float16."""
    model = dense_model(sizes, device)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and ".layers." in name:
            model.set_submodule(name, random_linear(module, group_size, device))
    return model


def contestants(sizes: dict[str, Any], device: torch.device, group_size: int) -> dict[str, Contestant]:
    """By name. On a CPU the static step stands in the place of the graph."""
    packed, dense = packed_model(sizes, device, group_size), dense_model(sizes, device)
    on_gpu = device.type == "cuda"
    graphs = CudaGraphs(device) if on_gpu else None
    runtimes = {
        OURS: attach(packed, device, "auto" if on_gpu else "static"),
        "packed, unfused graph": static_runtime(packed, device, graphs, fused=False),
        "float16, CUDA graph": static_runtime(dense, device, graphs),
        "float16, transformers": Runtime(dense, device, None, "transformers: asked for"),
    }
    return {name: Contestant(runtime) for name, runtime in runtimes.items()}


def contest(
    engines: dict[str, Contestant], asked: argparse.Namespace, sizes: dict[str, Any], end: float
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """batch -> name -> series over rounds: tokens_per_s, ttft_s. Whole rounds only, until `end`."""
    found = {str(b): {name: {"tokens_per_s": [], "ttft_s": []} for name in engines} for b in asked.batches}
    names, longest = list(engines), 0.0
    for turn in range(-1, asked.rounds):  # the first turn warms up: compiling, choosing, capturing
        began = time.monotonic()
        if turn > 0 and began + longest > end:
            print(f"the budget ends after {turn} of {asked.rounds} rounds", file=sys.stderr)
            break
        rows = {}
        for batch in asked.batches:
            prompts = np.random.default_rng([0, batch, turn + 1]).integers(
                0, sizes["vocab_size"], (batch, asked.prompt)
            )
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                rows[batch, name] = engines[name].time(prompts.tolist(), asked.new)
        if turn >= 0:
            longest = max(longest, time.monotonic() - began)
            for (batch, name), timing in rows.items():
                series = found[str(batch)][name]
                series["tokens_per_s"].append(batch * len(timing.gaps_s) / sum(timing.gaps_s))
                series["ttft_s"].append(timing.ttft_s)
    return found


def step_bytes(model: Any, batch: int, context: int) -> int:
    """What a decoding step must read: weights but the input embedding, keys and values of `context` tokens."""
    config = model.config
    embedding = model.get_input_embeddings().weight.nbytes
    head = config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    return int(weight_bytes(model) - embedding + per_token * batch * context)


def ratio(a: list[float], b: list[float]) -> list[float]:
    """Median over rounds of a / b, and its 95 % interval."""
    ratios = np.array(a) / np.array(b)
    draws = np.random.default_rng(0).integers(0, len(ratios), (4000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return [float(np.median(ratios)), float(low), float(high)]


def summarize(found: dict[str, Any], engines: dict[str, Contestant], asked: argparse.Namespace, ceilings: Any) -> None:
    """Adds to each entry its runtime, quartiles, bytes, utilization of the memory and how much faster ours is."""
    for batch, entries in found.items():
        for name, entry in entries.items():
            read = step_bytes(engines[name].model, int(batch), asked.prompt + asked.new // 2)
            quartiles = [float(q) for q in np.percentile(entry["tokens_per_s"], [25, 50, 75])]
            rate = read * quartiles[1] / int(batch)
            entry |= {
                "runtime": engines[name].runtime.name,
                "quartiles": quartiles,
                "bytes_per_step": read,
                "mbu_nominal": rate / ceilings.nominal if ceilings.nominal else None,
                "mbu_read": rate / ceilings.read,
                "ours_is": ratio(entries[OURS]["tokens_per_s"], entry["tokens_per_s"]),
            }


def table(found: dict[str, Any]) -> str:
    """Markdown: a row for each batch and contestant."""
    lines = [
        "| batch | contestant | runtime | tokens/s (median, quartiles) | ours is | MBU, nominal / of reading alone"
        " | first token, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch, entries in found.items():
        for name, entry in entries.items():
            low, middle, high = entry["quartiles"]
            nominal = "unknown" if entry["mbu_nominal"] is None else f"{entry['mbu_nominal']:.0%}"
            lines.append(
                f"| {batch} | {name} | {entry['runtime']} | {middle:.1f} ({low:.1f} to {high:.1f}) | "
                + "{:.2f}x [{:.2f}, {:.2f}]".format(*entry["ours_is"])
                + f" | {nominal} / {entry['mbu_read']:.0%} | {1e3 * np.median(entry['ttft_s']):.1f} |"
            )
    return "\n".join(lines)


def run(asked: argparse.Namespace) -> None:
    """Build, contend, print the table, write the JSON."""
    began = time.monotonic()
    device = pick_device(asked.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # events are of the current device
    sizes, group_size = (TINY, 32) if asked.tiny else (LLAMA3_8B, 128)
    if device.type != "cuda" and not asked.tiny:
        raise UserError(f"a model of this size on {device} measures nothing (allowed: --device cuda, or --tiny)")
    ceilings = measure_ceilings(device, *((2**22, 64) if device.type == "cpu" else ()))
    torch.manual_seed(0)
    with torch.no_grad():
        engines = contestants(sizes, device, group_size)
        state = machine.State(device)
        before = state.read()
        found = contest(engines, asked, sizes, began + asked.budget)
    summarize(found, engines, asked, ceilings)
    if device.type != "cuda":
        print("On a CPU: this shows that the script works, and is not a measurement of anything.")
    print(table(found), flush=True)
    if asked.json:
        import transformers

        kept = {
            "date": machine.now(), "device": machine.device_name(device), "described": state.describe(),
            "versions": machine.versions() | {"transformers": transformers.__version__},
            "ceilings": {"read": ceilings.read, "copy": ceilings.copy, "nominal": ceilings.nominal},
            "state": {"before": before, "after": state.read()}, "model": sizes, "group_size": group_size,
            "prompt": asked.prompt, "new": asked.new, "batches": found,
        }  # fmt: skip
        asked.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def main() -> None:
    """Parse and run; what a user can mend ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to see that the script works")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--budget", type=float, default=540, help="seconds; no round begins that would end later")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    try:
        run(asked)
    except ModuleNotFoundError as error:
        line = f"{error}: transformers and what it imports are needed"
    except torch.OutOfMemoryError:
        line = "out of memory: dense and packed weights need about 40 GB on the device"
    except UserError as error:
        line = str(error)
    else:
        return
    print(line.splitlines()[0], file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
