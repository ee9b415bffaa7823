r"""Tokens per second of one 4-bit model on the CPU: transformers in float32, this package's runtimes, llama.cpp.

    awqbench quantize demo --out CKPT --method rtn && awqbench export CKPT --to gguf --out CKPT.gguf
    python suites/micro/decode_cpu.py CKPT --gguf CKPT.gguf --rounds 10 --threads 2 1 --json out.json

Every contestant has a process of its own and all take turns, one prompt each, so that what else the machine does
meets them alike; between its turns a process sleeps. A ratio is the median over rounds of the two contestants' ratio
within a round, with a percentile bootstrap over rounds. llama.cpp reports its own time (its server divides all new
tokens by the time after the first, which favours it by one part in the number of tokens). Processor time of the whole
process is given too, less that of a prompt with one token: with one thread it hardly depends on what else runs; with
more, threads that wait by spinning count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import platform
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

SERIES = ("ttft_s", "tokens_per_s", "cpu_s_per_token")
OPTIONS = {"dtype": "float32", "device": "cpu", "batch_size": None, "trust_remote_code": False}


class Ours:
    """A backend of this package; `spec` holds its kind and options."""

    def __init__(self, spec: dict[str, Any], threads: int) -> None:
        from awqbench.backends.registry import create, kind

        self.backend = create(kind(spec["kind"]).target)
        self.described = self.backend.load({**OPTIONS, **spec, "threads": threads})

    def time(self, prompt: list[int], new: int) -> tuple[float, float]:
        """Seconds to the first token, tokens per second after it."""
        timing = self.backend.time([prompt], new)
        return timing.ttft_s, len(timing.gaps_s) / sum(timing.gaps_s) if timing.gaps_s else 0.0


class LlamaCpp:
    """llama.cpp's server on a GGUF file."""

    def __init__(self, spec: dict[str, Any], threads: int) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = spec["gguf"]
        parameters.n_ctx, parameters.n_parallel, parameters.port = 512, 1, 0
        parameters.hostnames = ["127.0.0.1"]
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(parameters)
        info = xllamacpp.get_system_info()
        self.described = {"system": info.decode() if isinstance(info, bytes) else info}

    def time(self, prompt: list[int], new: int) -> tuple[float, float]:
        """As `Ours.time`, from the server's own account."""
        body = {"prompt": prompt, "n_predict": new, "cache_prompt": False, "ignore_eos": True, "temperature": 0}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            self.server.listening_address + "/completion", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            told = json.load(answer)["timings"]
        if told["predicted_n"] != new:
            raise SystemExit(f"llama.cpp made {told['predicted_n']} tokens, not {new}")
        return told["prompt_ms"] / 1e3, told["predicted_per_second"]


def serve(pipe: Connection, spec: dict[str, Any], threads: int) -> None:
    """A contestant's process: load, then answer (prompt, new) until None comes."""
    contestant = LlamaCpp(spec, threads) if "gguf" in spec else Ours(spec, threads)
    pipe.send(contestant.described)
    while (asked := pipe.recv()) is not None:
        prompt, new = asked
        stamps = [time.process_time()]
        for tokens in (1, new):
            ttft, rate = contestant.time(prompt, tokens)
            stamps.append(time.process_time())
        first, whole = np.diff(stamps)
        pipe.send((ttft, rate, float(whole - first) / (new - 1)))


def contest(
    specs: dict[str, dict[str, Any]], threads: int, rounds: int, prompt: int, new: int, vocabulary: int
) -> dict[str, Any]:
    """name -> what it says of itself, and the series of all rounds."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes, found = {}, [], {}
    for name, spec in specs.items():
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(theirs, spec, threads), daemon=True))
        processes[-1].start()
        found[name] = {"described": pipes[name].recv(), **{series: [] for series in SERIES}}
    for turn in range(-1, rounds):
        ids = np.random.default_rng([0, turn + 1]).integers(100, vocabulary, prompt).tolist()
        names = list(pipes)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            pipes[name].send((ids, new))
            measured = pipes[name].recv()
            if turn >= 0:  # the first turn warms up
                for series, value in zip(SERIES, measured, strict=True):
                    found[name][series].append(value)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return found


def ratio(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Median over rounds of a / b, and its 95 % interval."""
    ratios = np.array(a) / np.array(b)
    draws = np.random.default_rng(0).integers(0, len(ratios), (4000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def table(found: dict[str, Any], threads: int) -> str:
    """Markdown: a row for each contestant, ratios of `native` to it."""
    title = f"{threads} thread{'s' * (threads > 1)}"
    lines = [
        f"| {title} | tokens/s (median, quartiles) | native is | CPU ms a token (median) | native takes"
        " | first token, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in found.items():
        low, middle, high = np.percentile(entry["tokens_per_s"], [25, 50, 75])
        faster, less = (
            "{:.2f}x [{:.2f}, {:.2f}]".format(*ratio(*pair))
            for pair in (
                (found["native"]["tokens_per_s"], entry["tokens_per_s"]),
                (entry["cpu_s_per_token"], found["native"]["cpu_s_per_token"]),
            )
        )
        cpu, first = 1e3 * np.median(entry["cpu_s_per_token"]), 1e3 * np.median(entry["ttft_s"])
        rate = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {name} | {rate} | {faster} | {cpu:.1f} | {less} less | {first:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--model", default="demo", help="what it was made of: a folder or a packaged name")
    parser.add_argument("--gguf", type=Path, help="the checkpoint exported for llama.cpp")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    from awqbench.sources.models import resolve_model

    packed = {"kind": "awq", "weights": str(asked.checkpoint)}
    specs: dict[str, dict[str, Any]] = {
        "native": {**packed, "runtime": "native"},
        "packed, transformers": {**packed, "runtime": "transformers"},
        "transformers float32": {"kind": "reference", "weights": str(resolve_model(asked.model).path)},
    }
    if importlib.util.find_spec("xllamacpp"):
        if asked.gguf:
            specs["llama.cpp, same codes"] = {"gguf": str(asked.gguf)}
        if asked.model == "demo":
            from awqbench.sources.demo import demo_gguf

            specs["llama.cpp, original Q4_1"] = {"gguf": str(demo_gguf())}
    vocabulary = json.loads((asked.checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    results = {}
    for threads in asked.threads:
        results[threads] = contest(specs, threads, asked.rounds, asked.prompt, asked.new, vocabulary)
        print(table(results[threads], threads), end="\n\n", flush=True)
    if asked.json:
        setup = {"machine": platform.processor() or platform.machine(), "prompt": asked.prompt, "new": asked.new}
        asked.json.write_text(json.dumps({**setup, "threads": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
