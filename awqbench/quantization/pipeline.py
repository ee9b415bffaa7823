"""`quantize_model`: a full-precision folder in, a quantized checkpoint out, block by block in bounded memory."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from awqbench.errors import UserError
from awqbench.formats.writer import refuse_occupied
from awqbench.quantization.assembly import assemble
from awqbench.quantization.blockwork import Progress, quantize_blocks
from awqbench.quantization.calibrate import Windows
from awqbench.quantization.memory import Needs, estimate, in_words
from awqbench.quantization.mixed import Mixing, choose
from awqbench.quantization.recipe import Recipe
from awqbench.quantization.settle import Job, Plan, settle
from awqbench.quantization.workspace import Workspace

log = logging.getLogger(__name__)


def quantize_model(
    model_dir: Path,
    out: Path,
    recipe: Recipe,
    *,
    windows: Windows | None = None,
    calibration: Mapping[str, Any] | None = None,
    layout: str = "autoawq",
    mixing: Mixing | None = None,
    scaled_only: bool = False,
    source: str | None = None,
    max_memory: int | None = None,
    workers: int = 1,
    resume: bool = False,
    indivisible: str = "error",
    overrides: Path | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Progress | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Quantize the linears of a causal LM's blocks and write the checkpoint `out`; the same inputs give the same bytes.

    Weights are read from the model's files block by block, and hidden states of the calibration text lie on disk, so
    that memory depends neither on the number of blocks nor on the length of the text. Each finished block is kept in
    `<out>.partial` until the checkpoint is written.

    Args:
        model_dir: a Hugging Face folder in full precision.
        out: the checkpoint folder to make, whole or not at all.
        recipe: method, bits, groups and what belongs to them.
        windows: calibration token ids. Every method but rtn needs them; with rtn they serve to measure output errors.
        calibration: where they come from, as quantize.json is to say it.
        layout: "autoawq" or "compressed-tensors".
        mixing: which linears keep more bits.
        scaled_only: write the model with its scales folded in, in the source's type and not rounded: an ordinary
            full-precision folder that other quantizers start from.
        source: what to call the model, such as its hub id; the folder's name by default.
        max_memory: bytes; the plan is refused if it needs more, or more than the machine has.
        workers: processes that quantize blocks at the same time, sharing torch's threads; each needs the whole memory.
        resume: go on with the finished blocks of a run that was killed; the result is the same to the byte.
        indivisible: what to do with linears the layout cannot hold: "error" refuses, "keep" leaves them as they are.
        overrides: a TOML file with scale groups and linears to keep, see `overrides.py`.
        dtype, device: of a block while it is quantized; searches and rounding compute in float32 whatever it is.
        progress: called with blocks done, blocks in all, and what is being done.
        dry_run: only say what would be done and needed.

    Returns:
        The metadata, as written to quantize.json (recipe, calibration, linears, groups, kept, mixed, warnings), with
        `needs` in bytes, `resumed_blocks` and `seconds`; for a dry run the plan.

    Raises:
        UserError: before anything is written, for a bad argument, folder, model or calibration, or too little memory
            or disk; later for files that turn out to be damaged.
    """
    started = time.perf_counter()
    out = Path(out)
    if workers < 1:
        raise UserError(f"workers is {workers} (allowed: 1 or more)")
    if scaled_only:
        if not recipe.scales:
            raise UserError(f"{recipe.method} does not scale (allowed for a scaled model: awq)")
        if mixing is not None and mixing.wanted:
            raise UserError("a scaled model is not quantized: mixed precision means nothing to it")
        mixing = Mixing(worst=sys.maxsize)
    plan = settle(
        Job(
            Path(model_dir), recipe, windows, layout, mixing or Mixing(), indivisible, overrides, trust_remote_code,
            allow_pickle, dtype, device,
        )
    )  # fmt: skip
    needs = estimate(
        plan.shape, plan.stack, plan.names, recipe, dtype, windows.tokens if windows else 0, workers,
        sensitivity=plan.job.mixing.wanted,
    )  # fmt: skip
    described = _described(plan, needs)
    log.info("%s", described["summary"])
    if dry_run:
        return described
    refuse_occupied(out)
    workspace = Workspace(out)
    needs.refuse(max_memory, out, workspace.held)
    # The order of summation follows the number of threads: a resumed run takes that of the first.
    threads = workspace.begun_with().get("threads") or max(1, torch.get_num_threads() // workers)
    with workspace.opened(plan.fingerprint(threads), resume):
        resumed = workspace.finished()
        quantize_blocks(plan, workspace, workers=workers, threads=threads, progress=progress)
        if progress:
            progress(plan.blocks, plan.blocks, "writing")
        metadata = {"model": source or Path(model_dir).resolve().name, **_metadata(plan, workspace, calibration)}
        assemble(out, plan.storage, workspace, plan.blocks, metadata, plan.outside)
    workspace.remove()
    seconds = round(time.perf_counter() - started, 2)
    return {**metadata, "needs": described["needs"], "resumed_blocks": resumed, "seconds": seconds}


def _described(plan: Plan, needs: Needs) -> dict[str, Any]:
    """What a dry run returns."""
    return {
        "summary": (
            f"{len(plan.names)} linears in {plan.blocks} blocks, {plan.job.scheme}, {plan.job.recipe.method},"
            f" as {plan.storage.layout.name}; {len(plan.kept)} kept; memory about {in_words(needs.peak)},"
            f" disk about {in_words(needs.workspace + needs.checkpoint)}"
        ),
        "needs": {**asdict(needs), "peak": needs.peak},
        "blocks": plan.blocks,
        "linears": plan.names,
        "kept": plan.kept,
        "warnings": plan.warnings,
    }


def _metadata(plan: Plan, workspace: Workspace, calibration: Mapping[str, Any] | None) -> dict[str, Any]:
    """What quantize.json says, from the records of all blocks."""
    job = plan.job
    records = [workspace.record(index) for index in range(plan.blocks)]
    rows = [row for record in records for row in record["linears"]]
    groups = [row for record in records for row in record["groups"]]
    total = sum(row["output_mse"] or 0.0 for row in rows)
    for row in rows:
        row["share"] = row["output_mse"] / total if total and row["output_mse"] is not None else None
    warnings = [*plan.warnings, *(line for record in records for line in record["warnings"])]
    described = None
    if (windows := job.windows) is not None:
        described = {
            **(calibration or {}),
            "sha256": windows.sha256,
            "samples": len(windows.ids),
            "samples_asked": windows.asked,
            "seq_len": windows.ids.shape[1],
            "tokens": windows.tokens,
        }
        if len(windows.ids) < windows.asked:
            warnings.append(f"the calibration text holds {len(windows.ids)} of the {windows.asked} windows asked for")
    return {
        "recipe": {**asdict(job.recipe), "dtype": str(job.dtype).removeprefix("torch.")},
        "calibration": described,
        "linears": rows,
        "groups": groups,
        "kept": plan.kept,
        "mixed": choose(rows, [row["linears"] for row in groups], plan.storage.layout.held(job.scheme), job.mixing)
        if job.mixing.wanted
        else None,
        "warnings": warnings,
    }
