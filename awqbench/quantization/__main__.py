"""The quantizer as a process: a JSON request on standard input, progress as JSON lines on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awqbench.errors import AwqbenchError, ExitCode


def main() -> int:
    """Quantize as the request says. Exit status 2 with {"error": line} for what the user can mend."""
    from awqbench.worker.__main__ import die_with_parent

    die_with_parent()
    # Standard output is the channel: whatever a library prints goes to the log instead.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        quantize_request(
            request, lambda done, total, _: print(json.dumps({"done": done, "total": total}), file=channel)
        )
    except AwqbenchError as error:
        print(json.dumps({"error": str(error)}), file=channel)
        return ExitCode.USER_ERROR
    return ExitCode.DONE


def quantize_request(request: dict[str, Any], progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Tokenize the calibration text, then quantize."""
    import torch

    from awqbench.backends.torch_engine import pick_device
    from awqbench.quantization.pipeline import quantize_model
    from awqbench.sources.models import load_tokenizer

    request = dict(request)
    if threads := request.pop("threads", None):
        torch.set_num_threads(threads)
    model_dir = Path(request.pop("model_dir"))
    text = Path(request.pop("calibration_file")).read_text(encoding="utf-8")
    tokenizer = load_tokenizer(model_dir, request["trust_remote_code"])
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    return quantize_model(
        model_dir,
        Path(request.pop("out")),
        calibration_ids=ids,
        device=str(pick_device(request.pop("device"))),
        progress=progress,
        **request,
    )


if __name__ == "__main__":
    sys.exit(main())
