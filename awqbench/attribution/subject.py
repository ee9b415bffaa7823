"""What is attributed: a checkpoint and its reference as folders, given as such or by a run's manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from awqbench.errors import UserError, unknown_choice
from awqbench.record.layout import RunDirectory
from awqbench.record.reader import read_record
from awqbench.record.schema import Manifest
from awqbench.sources.models import resolve_model
from awqbench.spec import DivergenceSpec, parse_spec

DEFAULT_TEXT = "pydoc-topics"


@dataclass(frozen=True, slots=True)
class Subject:
    """The folders, what to call the reference, a text that suits them, and where a run keeps its attributions."""

    checkpoint: Path
    reference: Path
    label: str
    trust_remote_code: bool
    text: str = DEFAULT_TEXT
    keep_in: Path | None = None
    backend: str = ""

    def place(self, what: str) -> Path | None:
        """Where the run keeps an attribution of `what` ("" is the KL); None without a run."""
        if self.keep_in is None:
            return None
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(filter(None, (self.backend, what))))
        return self.keep_in / f"{name}.json"


def find_subject(path: Path, reference: str | None, backend: str, trust_remote_code: bool = False) -> Subject:
    """The subject of a checkpoint's folder, which needs a `reference`, or of `backend` in a run directory.

    Raises UserError for a place that is neither, a backend the run does not have, and one without a checkpoint.
    """
    layout = RunDirectory(path)
    if layout.manifest.is_file():
        return _of_run(layout, backend, reference)
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is neither a checkpoint's folder (config.json) nor a run directory (manifest.json)")
    if reference is None:
        raise UserError(f"{path} is a checkpoint: say what it was made from with --reference")
    model = resolve_model(reference, None, trust_remote_code)
    return Subject(path, model.path, model.label, trust_remote_code)


def _of_run(layout: RunDirectory, backend: str, reference: str | None) -> Subject:
    manifest = read_record(layout.manifest, Manifest)
    spec = parse_spec(manifest.spec, str(layout.manifest))
    if backend not in spec.backends:
        raise unknown_choice("backend of the run", backend, spec.backends)
    own = spec.backends[spec.backends[backend].weights or backend]
    made = layout.checkpoint(spec.backends[backend].weights or backend)
    checkpoint = Path(own.checkpoint) if own.checkpoint else made
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"backend {backend!r} of {layout.root} has no checkpoint's folder: none at {checkpoint}")
    model = resolve_model(reference or spec.model.source, spec.model.revision, spec.model.trust_remote_code)
    texts = [suite.text for suite in spec.suites.values() if isinstance(suite, DivergenceSpec)]
    return Subject(
        checkpoint, model.path, model.label, spec.model.trust_remote_code,
        text=texts[0] if texts else DEFAULT_TEXT, keep_in=layout.attributions, backend=backend,
    )  # fmt: skip
