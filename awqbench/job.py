"""One thing to do in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["reference", "candidate", "control", "noise", "parity"]
NOISE = "reference-again"
PARITY = "parity"


@dataclass(frozen=True, slots=True)
class Job:
    """`needs` are ids of jobs whose results it reads, `key` the hash of all that could change its result.

    A cell whose suite and role are "parity" runs its backend's engine on the unquantized model.
    """

    id: str
    kind: Literal["checkpoint", "gguf", "logprobs", "cell"]
    backend: str
    suite: str | None
    role: Role
    key: str
    needs: tuple[str, ...] = ()
    share: float = 1.0
