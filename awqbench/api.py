"""The Python API: what the commands do, as functions."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from awqbench import __version__
from awqbench.errors import UserError
from awqbench.executors.checkpoint import run_quantizer
from awqbench.executors.local import Watcher, execute, pending
from awqbench.executors.request import check_settings, request
from awqbench.fingerprint import model_hash
from awqbench.gate import policy_hash
from awqbench.job import PARITY
from awqbench.plan import Plan, make_plan
from awqbench.policies import declared, refuse_unmeasured
from awqbench.record.attribution import Attribution
from awqbench.record.environment import hardware, packages
from awqbench.record.files import content_key, write_model
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import Run, load_run, read_record
from awqbench.record.schema import Manifest
from awqbench.score import rescore
from awqbench.sources.models import ResolvedModel, check_causal_lm, resolve_model
from awqbench.spec import RunSpec, load_spec, parse_quantize
from awqbench.watch import Silent
from awqbench.worker.client import WorkerFailed

log = logging.getLogger(__name__)

__all__ = ["load_run", "quantize", "run"]


def run(spec: RunSpec | str | Path, out: str | Path, *, watcher: Watcher | None = None) -> Run:
    """Measure what the spec says into the run directory `out`, judge it, and write its reports.

    Cells that are finished there and whose inputs have not changed are kept. Raises UserError before anything is
    measured when the spec, the model or the data are wrong.
    """
    return measure(spec if isinstance(spec, RunSpec) else load_spec(spec), Path(out), watcher or Silent())


def measure(spec: RunSpec, out: Path, watcher: Watcher, confirms: dict[str, str] | None = None) -> Run:
    """`run` on a checked spec. confirms: the cells of another run that this one measures again, with their keys."""
    rules = declared(spec)  # an unknown policy must cost nothing
    if confirms is None:
        refuse_unmeasured(rules, spec)
    model = resolve_model(spec.model.source, spec.model.revision, spec.model.trust_remote_code)
    plan = make_plan(spec, model, model_hash(model.path))
    directory = RunDirectory(out)
    directory.refuse_foreign()
    fresh = not directory.root.exists()
    with directory.lock():
        manifest = _manifest(plan, directory).model_copy(update={"confirms": confirms})
        if manifest.policy_hash != manifest.declared_policy_hash:
            log.warning("the gates are not those declared when this run began: the report says so")
        if pending(plan, directory):
            directory.drop_conclusions()
        write_model(directory.manifest, manifest)
        try:
            execute(plan, directory, watcher)
        except UserError:
            if fresh and directory.is_empty():
                shutil.rmtree(directory.root)  # a mistake in the spec must not leave a run directory behind
            raise
        _drop_unplanned(plan, directory)
        if not pending(plan, directory, again=False):
            directory.drop_scratch()
        finished = manifest.model_copy(update={"finished": _now()})
        write_model(directory.manifest, finished)
        return rescore(directory.root)


def quantize(
    model: str,
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    dry_run: bool = False,
    scaled_only: bool = False,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    **options: Any,
) -> dict[str, Any]:
    """Quantize a model into `out`, a new checkpoint; `options` are keys of the spec's [quantize]: method, bits, ...

    What is finished when it is killed lies in `<out>.partial`; with `resume` the same call goes on from there and
    writes the same bytes. `progress` gets blocks done, blocks in all and the name of the block at hand. Returns what
    the checkpoint's quantize.json holds, with seconds and the memory and disk it was expected to need; with `dry_run`
    nothing is computed, and the plan is returned. With `scaled_only` the checkpoint is the scaled model in full
    precision. Raises UserError, before anything is computed, when the model, an
    option or the calibration source is wrong, or `out` exists; WorkerFailed if the quantizer's process dies.
    """
    settings = parse_quantize(options)
    place = Path(out).absolute()
    partial = place.with_name(f"{place.name}.partial")
    if place.exists():
        raise UserError(f"{out} exists already: choose another --out, or remove it")
    if partial.exists() and not resume and not dry_run:
        raise UserError(f"{partial} holds an unfinished checkpoint: go on with --resume, or remove it")
    check_settings(settings)
    found = resolve_model(model, None, trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="awqbench-") as scratch:
        asked = {
            **request(settings, found.path, place, Path(scratch), seed),
            "resume": resume,
            "dry_run": dry_run,
            "scaled_only": scaled_only,
            "source": found.label if found.origin == "hub" else None,
            "device": device,
            "trust_remote_code": trust_remote_code,
        }
        said = Path(scratch) / "log.txt"
        try:
            return run_quantizer(asked, said, progress)
        except WorkerFailed:
            log.error("%s", said.read_text(encoding="utf-8", errors="replace").strip())
            raise


def _manifest(plan: Plan, directory: RunDirectory) -> Manifest:
    spec = plan.spec.model_dump(mode="json", exclude_none=True)
    rules = declared(plan.spec)
    policy = policy_hash(rules.gates)
    earlier = read_record(directory.manifest, Manifest) if directory.manifest.is_file() else None
    return Manifest(
        awqbench_version=__version__,
        created=earlier.created if earlier else _now(),
        declared_policy_hash=earlier.declared_policy_hash if earlier else policy,
        command=sys.argv,
        spec=spec,
        spec_hash=content_key(spec),
        policy_hash=policy,
        policy=rules.name if rules.gates else "",
        gates=[gate.model_dump(mode="json", exclude_none=True) for gate in rules.gates],
        model=_describe(plan.model, plan.model_hash, plan.spec),
        data=plan.data,
        packages=packages(),
        hardware=hardware(),
        seed=plan.spec.seed,
    )


def _describe(model: ResolvedModel, digest: str, spec: RunSpec) -> dict[str, Any]:
    config = check_causal_lm(model.path, spec.model.trust_remote_code)
    text = config.get("text_config", config)
    wanted = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
              "vocab_size", "max_position_embeddings", "tie_word_embeddings")  # fmt: skip
    return {
        "source": spec.model.source,
        "label": model.label,
        "origin": model.origin,
        "path": str(model.path),
        "hash": digest,
        "architecture": (config.get("architectures") or ["?"])[0],
        **{key: text[key] for key in wanted if key in text},
    }


def _drop_unplanned(plan: Plan, directory: RunDirectory) -> None:
    """Cells of an earlier spec that this one no longer asks for would appear in its report: they go, and what its jobs
    left for each other, which nobody reads any more."""
    planned = {(job.backend, job.suite) for job in plan.jobs if job.kind == "cell"}
    for cell in directory.cells.glob("*/*"):
        if (cell.parent.name, cell.name) not in planned:
            shutil.rmtree(cell)
    for cell in directory.parity.glob("*"):
        if (cell.name, PARITY) not in planned:
            shutil.rmtree(cell)
    directory.drop_scratch({job.key for job in plan.jobs})
    _drop_attributions(plan, directory)


def _drop_attributions(plan: Plan, directory: RunDirectory) -> None:
    """Of weights that are no more: the report would show them beside the figures of others."""
    found = [(path, read_record(path, Attribution)) for path in directory.attributions.glob("*.json")]
    if not found:
        return
    folders = [
        Path(backend.checkpoint) if backend.checkpoint else directory.checkpoint(name)
        for name, backend in plan.spec.backends.items()
    ]
    hashes = {model_hash(folder) for folder in folders if (folder / "config.json").is_file()}
    for path, of in found:
        if of.checkpoint_hash not in hashes:
            path.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
