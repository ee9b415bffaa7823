"""`awqbench.attribute`: the command as a function."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from awqbench.attribution.subject import find_subject
from awqbench.errors import UserError, unknown_choice
from awqbench.executors.child import run_child
from awqbench.record.attribution import Attribution, By
from awqbench.record.files import write_model
from awqbench.worker.client import WorkerFailed

MOST_POINTS = 64

log = logging.getLogger(__name__)


def attribute(
    path: str | Path,
    reference: str | None = None,
    *,
    backend: str = "awq",
    text: str | None = None,
    window: int = 256,
    windows: int = 8,
    item_set: str | None = None,
    items: int = 60,
    attribute: str | None = None,
    group: str | None = None,
    loss: str | None = None,
    by: str = "linear",
    top: int = 10,
    points: int = 3,
    max_minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    out: str | Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Attribution:
    """Which weights a checkpoint's damage comes from, estimated for all at once and measured for the first `top`.

    `path` is a checkpoint's folder, with the `reference` it was made from, or a run directory and one `backend` of it;
    a run keeps the result in its attribution folder, where `awqbench report` finds it, unless `out` says where else.
    The damage is KL(reference || checkpoint) on `windows` windows of a `text` for estimating and as many for
    confirming, or the increase of an items' `loss` on a fairness set `item_set`, `items` for each half: of all items,
    or of one `group` of an `attribute` less the others (the group that suffers most, where only the attribute is
    named). `by`: linear, block or kind. `points` is the number of nodes on the path of the integral.

    It runs in a process of its own, in float32; its memory is about three times the model's weights in float32.
    Raises UserError for what the caller can mend, InvalidMeasurement for damage that is not finite or a group that is
    too small, WorkerFailed if the process dies.
    """
    if by not in get_args(By):
        raise unknown_choice("grouping", by, get_args(By))
    for name, value, most in (("top", top, 10**6), ("points", points, MOST_POINTS)):
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value} (allowed: 1 to {most})")
    if out is not None and Path(out).is_dir():  # hours later it could not be written there
        raise UserError(f"{out} is a folder (allowed: a file to write)")
    subject = find_subject(Path(path), reference, backend, trust_remote_code)
    if item_set is None and (given := attribute or group or loss):
        raise UserError(f"{given!r} says something about the items of a set (allowed: together with --set)")
    if item_set is not None and items < 2:
        raise UserError(f"items is {items} (allowed: 2 or more for each half)")
    measure: dict[str, Any] = {"text": text or subject.text, "window": window, "windows": windows}
    if item_set is not None:
        measure = {"set": item_set, "items": items, "attribute": attribute, "group": group, "loss": loss}
    asked = {
        "checkpoint": str(subject.checkpoint), "reference": str(subject.reference), "reference_label": subject.label,
        "trust_remote_code": subject.trust_remote_code, "measure": measure, "by": by, "top": top, "points": points,
        "seed": seed, "max_minutes": max_minutes, "device": device, "threads": threads,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="awqbench-") as scratch:
        said = Path(scratch) / "log.txt"
        try:
            answer = run_child("awqbench.attribution", "the attribution", asked, said, progress)
        except WorkerFailed:
            log.error("%s", said.read_text(encoding="utf-8", errors="replace").strip())
            raise
    found = Attribution.model_validate(answer)
    place = Path(out) if out else subject.place("-".join(filter(None, (item_set, found.measure.get("group")))))
    if place is not None:
        write_model(place, found)
    return found
