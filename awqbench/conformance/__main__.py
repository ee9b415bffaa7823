"""`python -m awqbench.conformance KIND`: exit status 0 where all promises are kept, 1 where one is not, 2 a mistake."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import Any

from awqbench.conformance.runner import conform
from awqbench.errors import AwqbenchError, ExitCode


def main(arguments: list[str] | None = None) -> int:
    """Check one backend and print what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m awqbench.conformance", description="Does a backend keep what its capabilities promise?"
    )
    parser.add_argument("kind", help="a backend kind, built in or a plugin's; awqbench doctor lists them")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="one of the kind's options")
    parser.add_argument("--model", default="tiny-random", help="a folder, a packaged name or a hub id")
    parser.add_argument("--weights", help="a checkpoint's folder or a GGUF file to run instead of the model")
    parser.add_argument("--python", help="the interpreter that has the engine")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--timeout-s", type=float, default=600.0, help="longest wait for an answer")
    parser.add_argument("--tolerance", type=float, help="nats between two ways to one log-probability")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    asked = vars(parser.parse_args(arguments))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("awqbench").setLevel(logging.WARNING)
    as_json, kind, options = asked.pop("json"), asked.pop("kind"), asked.pop("option")
    try:
        report = conform(kind, dict(map(_option, options)), **asked)
    except AwqbenchError as error:
        print(f"awqbench: {error}", file=sys.stderr)
        return ExitCode.USER_ERROR
    print(json.dumps(report.as_dict(), indent=2) if as_json else report)
    return ExitCode.GATE_FAILED if report.failed else ExitCode.DONE


def _option(text: str) -> tuple[str, Any]:
    """KEY=VALUE, where VALUE is JSON if it can be (4, true, [1, 2]) and text otherwise."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


if __name__ == "__main__":
    sys.exit(main())
