"""Start a backend and run every check on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from awqbench.backends import registry
from awqbench.backends.kind import Kind
from awqbench.conformance import agreement, generating, manners, scoring
from awqbench.conformance.subject import Subject
from awqbench.conformance.verdict import Failed, Finding, NotOffered, Report
from awqbench.environments import resolve
from awqbench.errors import AwqbenchError, unknown_choice
from awqbench.sources.models import load_tokenizer, resolve_model
from awqbench.worker.client import Worker, WorkerFailed

Check = Callable[[Subject], str]

CHECKS: tuple[Check, ...] = (
    manners.description_is_complete,
    scoring.scores_are_log_probabilities,
    scoring.order_and_batching_change_nothing,
    scoring.starts_are_honoured,
    scoring.nothing_to_score_is_no_error,
    scoring.distributions_sum_to_one,
    scoring.rows_begin_at_start,
    scoring.scores_are_in_the_distributions,
    scoring.decoding_agrees_with_prefill,
    scoring.top_tokens_are_the_top,
    generating.generation_is_greedy,
    generating.generation_stops,
    generating.a_text_ends_generation,
    generating.every_step_is_timed,
    manners.tokenizers_agree,
    agreement.the_models_own_weights_say_the_same,
    manners.memory_does_not_grow,
    manners.what_is_not_offered_is_refused,
    manners.unloading_works,  # nothing can be asked after it
)
# Rounding differs with the shape of a batch; half precision rounds a thousand times as coarsely.
TOLERANCE = {"float32": 2e-3}
HALF_TOLERANCE = 0.1


def conform(
    kind: str | Kind,
    settings: Mapping[str, Any] | None = None,
    *,
    model: str = "tiny-random",
    weights: str | Path | None = None,
    python: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    timeout_s: float = 600.0,
    tolerance: float | None = None,
    environment: dict[str, str] | None = None,
) -> Report:
    """Run every check on one backend.

    Args:
        settings: the kind's own options, as a spec's `options` table holds them.
        model: a folder, a packaged name or a hub id.
        weights: what to run instead of what would be made from the model: a folder, or a GGUF file.
        tolerance: how far two ways to one log-probability may be apart, nats; by default what its dtype deserves.

    Raises UserError for an option or a model that does not exist, BackendUnavailable where the engine is missing;
    whatever else goes wrong is a finding.
    """
    found = registry.kind(kind) if isinstance(kind, str) else kind
    own = dict(settings or {})
    for name in own:
        if name not in found.options:
            raise unknown_choice(f"option of {found.name}", name, found.options)
    resolved = resolve_model(model)
    interpreter = resolve(found, python).path
    with tempfile.TemporaryDirectory(prefix="awqbench-conformance-") as scratch:
        run = weights or _weights(found, resolved.path, Path(scratch))
        options = {
            "model_dir": str(resolved.path), "weights": str(run), "unquantized": False, "dtype": dtype,
            "device": device, "threads": threads, "batch_size": None, "runtime": "auto", "trust_remote_code": False,
            "settings": own,
        }  # fmt: skip

        def worker(**changed: Any) -> Worker:
            log = Path(scratch) / "log.txt"
            asked = {**options, **changed}
            return Worker(found, asked, log, python=interpreter, timeout_s=timeout_s, environment=environment)

        with worker() as started:
            allowed = tolerance or TOLERANCE.get(started.description.get("dtype", ""), HALF_TOLERANCE)
            tokenizer = load_tokenizer(resolved.path)
            subject = Subject(found, started, resolved.path, tokenizer, allowed, own)
            if found.name == "reference":
                subject.unquantized = lambda: _lent(started)
            elif found.engine and weights is None and _runs_the_model(found, own):
                subject.unquantized = lambda: worker(unquantized=True)
            findings = [_finding(check, subject) for check in CHECKS]
        return Report(found.name, resolved.label, started.description, findings)


def _finding(check: Check, subject: Subject) -> Finding:
    name = check.__name__.replace("_", " ")
    promise = " ".join((check.__doc__ or "").split())
    try:
        return Finding(name, promise, "pass", check(subject))
    except NotOffered as error:
        return Finding(name, promise, "not offered", str(error))
    except (Failed, WorkerFailed, AwqbenchError) as error:
        return Finding(name, promise, "fail", str(error))
    except Exception as error:  # an answer of another form than any check foresees
        return Finding(name, promise, "fail", f"{type(error).__name__}: {error}")


def _runs_the_model(kind: Kind, settings: Mapping[str, Any]) -> bool:
    """Whether the engine can be had on the model's own weights: a server of its own has to be named for that."""
    if kind.weights == "server":
        return any(name.startswith("parity_") for name in settings)
    return kind.weights in {"model", "folder", "gguf"}


@contextmanager
def _lent(worker: Worker) -> Iterator[Worker]:
    yield worker


def _weights(kind: Kind, folder: Path, scratch: Path) -> Path | str:
    """What the kind runs: the model's folder, or what is made of it here."""
    if kind.weights == "server":
        return ""
    if kind.weights == "made":
        from awqbench.api import quantize

        quantize(
            str(folder), scratch / "made", method="rtn", group_size=32, calibration="pydoc-topics", samples=1,
            seq_len=64,
        )  # fmt: skip
        return scratch / "made"
    if kind.weights == "gguf":
        from awqbench.formats.gguf.export import export_gguf

        export_gguf(folder, scratch / "model.gguf", kind="f16", name="conformance")
        return scratch / "model.gguf"
    return folder
