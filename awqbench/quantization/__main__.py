"""The quantizer as a process: a JSON request on standard input, progress as JSON lines on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.executors.child import serve


def quantize_request(request: dict[str, Any], progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Make the calibration windows, then quantize as `quantize_model` does. See `awqbench.executors.request`."""
    import torch

    from awqbench.backends.device import pick_device
    from awqbench.cores import use_threads
    from awqbench.quantization.mixed import Mixing
    from awqbench.quantization.pipeline import quantize_model
    from awqbench.quantization.recipe import Recipe
    from awqbench.sources.calibration import calibration_windows, read_documents
    from awqbench.sources.models import load_tokenizer

    request = dict(request)
    use_threads(request.pop("threads", None))
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


def _refuse_longer_than_context(model_dir: Path, seq_len: int) -> None:
    from awqbench.formats.settings import context_length
    from awqbench.sources.models import check_causal_lm

    limit = context_length(check_causal_lm(model_dir, trust_remote_code=True))
    if limit is not None and seq_len > limit:
        raise UserError(f"seq_len {seq_len} is longer than the model's context (allowed: 2 to {limit})")


if __name__ == "__main__":
    sys.exit(serve(quantize_request))
