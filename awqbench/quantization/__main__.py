"""The quantizer as a process: a JSON request on standard input, progress as JSON lines on standard output."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awqbench.errors import AwqbenchError, ExitCode, UserError


def main() -> int:
    """Quantize as the request says. Exit status 2 with {"error": line} for what the user can mend."""
    from awqbench.worker.guard import die_with_parent

    die_with_parent()
    # Standard output is the channel: whatever a library prints goes to the log instead.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        print(json.dumps(message), file=channel)

    request = json.load(sys.stdin)
    try:
        say(result=quantize_request(request, lambda done, total, what: say(done=done, total=total, what=what)))
    except AwqbenchError as error:
        say(error=str(error))
        return ExitCode.USER_ERROR
    except Exception as error:
        if not _disk_is_full(error):
            raise
        say(error=f"the disk is full: {error}")
        return ExitCode.USER_ERROR
    return ExitCode.DONE


def quantize_request(request: dict[str, Any], progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Make the calibration windows, then quantize as `quantize_model` does. See `awqbench.executors.request`."""
    import torch

    from awqbench.backends.torch_engine import pick_device
    from awqbench.quantization.mixed import Mixing
    from awqbench.quantization.pipeline import quantize_model
    from awqbench.quantization.recipe import Recipe
    from awqbench.sources.calibration import calibration_windows, read_documents
    from awqbench.sources.models import load_tokenizer

    request = dict(request)
    if threads := request.pop("threads", None):
        torch.set_num_threads(threads)
    model_dir = Path(request.pop("model_dir"))
    recipe = Recipe(**request.pop("recipe"))
    source = request.pop("calibration")
    kind = {key: source.pop(key) for key in ("protocol", "samples", "seq_len", "chat_template")}
    _refuse_longer_than_context(model_dir, kind["seq_len"])
    tokenizer = load_tokenizer(model_dir, request["trust_remote_code"])
    documents = read_documents(Path(request.pop("documents")))
    windows, record = calibration_windows(tokenizer, documents, **kind, seed=recipe.seed)
    overrides = request.pop("overrides")
    return quantize_model(
        model_dir,
        Path(request.pop("out")),
        recipe,
        windows=windows,
        calibration={**source, **record},
        mixing=Mixing(**request.pop("mixing")),
        overrides=Path(overrides) if overrides else None,
        dtype=getattr(torch, request.pop("dtype")),
        device=str(pick_device(request.pop("device"))),
        progress=progress,
        **request,
    )


def _disk_is_full(error: Exception) -> bool:
    # safetensors reports what the system said in words only.
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error)


def _refuse_longer_than_context(model_dir: Path, seq_len: int) -> None:
    from awqbench.sources.models import check_causal_lm

    config = check_causal_lm(model_dir, trust_remote_code=True)
    limit = config.get("text_config", config).get("max_position_embeddings")
    if isinstance(limit, int) and seq_len > limit:
        raise UserError(f"seq_len {seq_len} is longer than the model's context (allowed: 2 to {limit})")


if __name__ == "__main__":
    sys.exit(main())
