"""All that is settled before a weight is read: which linears, in which blocks, how stored, and what is refused."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from awqbench import __version__
from awqbench.errors import UserError, unknown_choice
from awqbench.formats.layouts import Scheme, layout
from awqbench.formats.settings import CONFIG
from awqbench.modeling.experts import disk_names, unfuse_experts
from awqbench.modeling.skeleton import skeleton
from awqbench.modeling.weights import Weights
from awqbench.quantization.blocks import find_blocks, linears_of, routers, unreachable, untranspose
from awqbench.quantization.calibrate import Windows
from awqbench.quantization.mixed import Mixing
from awqbench.quantization.outcome import Storage
from awqbench.quantization.overrides import Overrides, read_overrides
from awqbench.quantization.policy import cannot_hold, refuse_indivisible
from awqbench.quantization.recipe import Recipe
from awqbench.record.files import stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for, as plain data that another process can be given; see `pipeline.quantize_model`."""

    model_dir: Path
    recipe: Recipe
    windows: Windows | None
    layout: str
    mixing: Mixing
    indivisible: str
    overrides: Path | None
    trust_remote_code: bool
    allow_pickle: bool
    dtype: torch.dtype
    device: str

    @property
    def scheme(self) -> Scheme:
        """How every linear is stored that mixed precision does not raise."""
        return Scheme(self.recipe.bits, self.recipe.group_size, self.recipe.symmetric)

    def check(self) -> None:
        """Raise UserError for what contradicts itself, before the model is looked at."""
        self.recipe.check()
        if self.indivisible not in ("error", "keep"):
            raise unknown_choice("indivisible policy", self.indivisible, ("error", "keep"))
        layout(self.layout).refuse(self.scheme)
        self.mixing.check(layout(self.layout).held(self.scheme))
        if self.mixing.wanted and self.mixing.bits < 16:
            layout(self.layout).refuse(Scheme(self.mixing.bits, self.recipe.group_size, self.recipe.symmetric))
        if self.windows is None and self.recipe.method != "rtn":
            raise UserError(
                f"{self.recipe.method} needs a calibration text (allowed: calibration windows, or method rtn)"
            )
        if self.windows is None and self.mixing.wanted:
            raise UserError("mixed precision is chosen by measured errors, which need a calibration text")


@dataclass(slots=True)
class Plan:
    """A job held against the model's structure.

    `shape` is the model as it will be quantized, without weights: linears untransposed, experts apart. `stack` names
    its list of blocks. `names` are the linears to quantize, `kept` the others of the blocks, `outside` those elsewhere
    and what other engines may have as linears: routers, which are modules of their own in transformers 5.
    """

    job: Job
    storage: Storage
    shape: nn.Module
    stack: str
    blocks: int
    names: list[str]
    kept: list[str]
    outside: list[str]
    overrides: Overrides
    warnings: list[str]

    def fingerprint(self, threads: int) -> dict[str, Any]:
        """All that the finished blocks depend on."""
        job = self.job
        sources = {entry.file for entry in self.storage.weights.files.entries.values()}
        sources |= {job.model_dir / CONFIG, *job.model_dir.glob("*.py")}
        return {
            "recipe": asdict(job.recipe),
            "model": [[path.name, *stamp(path)] for path in sorted(sources)],
            "calibration": [job.windows.sha256, list(job.windows.ids.shape)] if job.windows else None,
            "format": self.storage.layout.name,
            "mixed precision": job.mixing.wanted,
            "kept linears": self.kept,
            "overrides": repr(self.overrides),
            "dtype": str(job.dtype),
            "device": job.device,
            "threads": threads,
            "versions": {"awqbench": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        }


def settle(job: Job) -> Plan:
    """Hold a job against its model's structure. Raises UserError where they don't fit, naming what does."""
    job.check()
    asked = read_overrides(job.overrides)
    model = skeleton(job.model_dir, job.trust_remote_code, job.dtype)
    shape = copy.deepcopy(model)
    untranspose(shape)
    unfused = unfuse_experts(shape)
    stack, blocks = find_blocks(shape)
    linears = linears_of(blocks, stack)
    asked.check(linears, stack)
    kept = _kept(job, asked, linears, routers(blocks, stack))
    names = [name for name in linears if name not in kept]
    job.mixing.check_names(names)
    names_on_disk, warnings = disk_names(model), []
    if unfused and not names_on_disk:
        warnings.append("the experts have no names of their own in the source's files: only awqbench reads the result")
    others = unreachable(blocks, stack)
    if others:
        warnings.append(
            f"{len(others)} weights of the blocks are no linears and stay as they are, the first {others[0]}"
        )
    for line in warnings:
        log.warning("%s", line)
    weights = Weights(job.model_dir, model, allow_pickle=job.allow_pickle)
    return Plan(
        job=job,
        storage=Storage(weights, layout(job.layout), job.scheme, names_on_disk),
        shape=shape,
        stack=stack,
        blocks=len(blocks),
        names=names,
        kept=sorted(kept),
        outside=[
            *(name for name in linears_of(shape, "") if not name.startswith(f"{stack}.")),
            *(name.removesuffix(".weight") for name in others if name.endswith(".weight")),
        ],
        overrides=asked,
        warnings=warnings,
    )


def _kept(job: Job, asked: Overrides, linears: Mapping[str, nn.Linear], routing: Sequence[str]) -> list[str]:
    skipped = [name for name in linears if name in routing or asked.skips(name)]
    eligible = {name: linear for name, linear in linears.items() if name not in skipped}
    if job.indivisible == "error":
        refuse_indivisible(eligible, layout(job.layout), job.scheme)
    kept = skipped + cannot_hold(eligible, layout(job.layout), job.scheme)
    if len(kept) == len(linears):
        size = job.recipe.group_size
        raise UserError(f"none of the {len(linears)} linears can be quantized with group size {size}")
    return kept
