"""`quantize_model`: a full-precision folder in, an AutoAWQ checkpoint and its quantize.json out, block by block."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from awqbench.errors import UserError, unknown_choice
from awqbench.quantization.blocks import find_blocks, linears_of, transpose_back, unreachable, untranspose
from awqbench.quantization.blockwise import Block, BlockResult, Method, Recipe, Search
from awqbench.quantization.calibrate import BlockCall, Windows, capture_blocks, cut_windows
from awqbench.quantization.loading import load, skeleton
from awqbench.quantization.policy import cannot_hold, refuse_indivisible

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
BITS = (3, 4)
_STRETCH_TOKENS = 32  # what scale groups are found and proved on


def quantize_model(
    model_dir: Path,
    out: Path,
    *,
    method: Method,
    bits: int = 4,
    group_size: int = 64,
    clip: bool = True,
    calibration_ids: Tensor | None = None,
    calibration_name: str | None = None,
    samples: int = 8,
    seq_len: int = 128,
    indivisible: str = "error",
    search: Search = "module",
    seed: int = 0,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantize the linears of a causal LM's blocks and write the checkpoint `out`; the same inputs give the same bytes.

    Args:
        model_dir: a Hugging Face folder in full precision.
        out: the checkpoint folder to make, whole or not at all.
        method: "awq" (arXiv 2306.00978: activation-aware scales, then clipping) or "rtn" (rounding to nearest).
        bits: 4 or 3; the codes' width.
        group_size: weights along the input that share a scale and a zero point.
        clip: whether awq searches a clipping bound per group.
        calibration_ids: token ids [tokens] of the calibration text, not the evaluation text. awq needs them; with rtn
            they only serve to measure output errors.
        samples, seq_len: calibration windows and their length in tokens.
        indivisible: what to do with linears the layout cannot hold: "error" refuses, "keep" leaves them as they are.
        search: "module" judges every trial scale by the output of the module it feeds (the paper), "gram" by the second
            moments of the inputs.
        dtype, device: of the model while it is quantized; searches and rounding compute in float32 whatever it is.
        progress: called with blocks done, blocks in all, and what is being done.

    Returns:
        The metadata, as written to quantize.json: recipe, calibration, linears, groups, kept, warnings, seconds.

    Raises:
        UserError: before anything is written, for a bad argument, folder, model or calibration text.
    """
    recipe = Recipe(method, bits, group_size, clip and method == "awq", search, seed)
    _check(recipe, indivisible, samples, seq_len)
    windows = None
    if calibration_ids is not None:
        windows = cut_windows(calibration_ids.cpu(), samples, seq_len)
    elif method == "awq":
        raise UserError("awq needs a calibration text (allowed: calibration ids, or method rtn)")
    kept, warnings = _plan(skeleton(model_dir, trust_remote_code), group_size, indivisible)

    started = time.perf_counter()
    model = load(model_dir, dtype, device, trust_remote_code)
    transposed = untranspose(model)
    loaded = time.perf_counter()
    result = quantize_blocks(model, recipe, kept, windows, progress)
    transpose_back(model, [name for name in transposed if name not in result.quantized])
    seconds = {"load": loaded - started, "quantize": time.perf_counter() - loaded}

    result.warnings[:0] = warnings
    metadata = _metadata(recipe, windows, calibration_name, seq_len, dtype, kept, result)
    metadata["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    from awqbench.formats.checkpoint import write_checkpoint

    not_converted = [name for name in linears_of(model, "") if name not in result.quantized]
    write_checkpoint(
        out, model_dir, model, result.quantized, bits=bits, group_size=group_size, not_converted=not_converted,
        metadata=metadata,
    )  # fmt: skip
    return metadata


def quantize_blocks(
    model: nn.Module, recipe: Recipe, kept: list[str], windows: Windows | None, progress: Progress | None = None
) -> BlockResult:
    """Quantize a loaded model in place, all linears of its blocks but `kept`, and leave it fake-quantized.

    Each block is calibrated on the outputs of the unquantized blocks before it.
    """
    stack_name, blocks = find_blocks(model)
    hidden: list[Tensor] = []
    stretch = torch.empty(0)
    calls: list[BlockCall] = []
    stretch_calls: list[BlockCall] = []
    if windows is not None:
        hidden, calls = capture_blocks(model, blocks, windows)
        short = Windows(windows.ids[:1, :_STRETCH_TOKENS], 1)
        (stretch,), stretch_calls = capture_blocks(model, blocks, short)
    total = BlockResult()
    for index, module in enumerate(blocks):
        prefix = f"{stack_name}.{index}"
        if progress:
            progress(index, len(blocks), prefix)
        names = [name for name in linears_of(module, "") if f"{prefix}.{name}" not in kept]
        block = Block(module, prefix, names, recipe)
        if windows is None:
            part = block.round_to_nearest()
        else:
            with torch.no_grad():
                following = stretch_calls[index](module, stretch)
            part = block.calibrated(calls[index], hidden, stretch, stretch_calls[index])
            stretch = following
        total.quantized |= part.quantized
        total.linears += part.linears
        total.groups += part.groups
        total.warnings += part.warnings
    if progress:
        progress(len(blocks), len(blocks), "writing")
    return total


def _check(recipe: Recipe, policy: str, samples: int, seq_len: int) -> None:
    for what, value, allowed in (
        ("method", recipe.method, get_args(Method)),
        ("search", recipe.search, get_args(Search)),
        ("indivisible policy", policy, ("error", "keep")),
        ("bits", recipe.bits, BITS),
    ):
        if value not in allowed:
            raise unknown_choice(what, value, allowed)
    for what, number in (("group size", recipe.group_size), ("samples", samples), ("seq_len", seq_len)):
        if number < 1:
            raise UserError(f"{what} is {number} (allowed: 1 or more)")


def _plan(model: nn.Module, group_size: int, policy: str) -> tuple[list[str], list[str]]:
    """The linears of the blocks that stay in full precision, and warnings about other weights that do.

    Raises UserError where the policy or the model refuses.
    """
    untranspose(model)
    stack_name, blocks = find_blocks(model)
    linears = linears_of(blocks, stack_name)
    if policy == "error":
        refuse_indivisible(linears, group_size)
    kept = cannot_hold(linears, group_size)
    if len(kept) == len(linears):
        raise UserError(f"none of the {len(linears)} linears can be quantized with group size {group_size}")
    warnings = []
    if others := unreachable(blocks, stack_name):
        warnings.append(
            f"{len(others)} weights of the blocks are no linears and stay as they are, the first {others[0]}"
        )
        log.warning("%s", warnings[0])
    return kept, warnings


def _metadata(
    recipe: Recipe, windows: Windows | None, name: str | None, seq_len: int, dtype: torch.dtype, kept: list[str],
    result: BlockResult,
) -> dict[str, Any]:  # fmt: skip
    warnings = list(result.warnings)
    calibration = None
    if windows is not None:
        calibration = {
            "name": name,
            "sha256": windows.sha256,
            "samples": len(windows.ids),
            "samples_asked": windows.asked,
            "seq_len": seq_len,
            "tokens": windows.tokens,
        }
        if len(windows.ids) < windows.asked:
            warnings.append(f"the calibration text holds {len(windows.ids)} of the {windows.asked} windows asked for")
    total = sum(row["output_mse"] or 0.0 for row in result.linears)
    for row in result.linears:
        row["share"] = row["output_mse"] / total if total and row["output_mse"] is not None else None
    return {
        "recipe": {
            "method": recipe.method,
            "bits": recipe.bits,
            "group_size": recipe.group_size,
            "clip": recipe.clip,
            "search": recipe.search if recipe.method == "awq" else None,
            "seed": recipe.seed,
            "dtype": str(dtype).removeprefix("torch."),
        },
        "calibration": calibration,
        "linears": result.linears,
        "groups": result.groups,
        "kept": kept,
        "warnings": warnings,
    }
