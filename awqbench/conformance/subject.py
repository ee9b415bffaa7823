"""The backend under test: a worker on a model, and the token ids it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from awqbench.backends.base import Capability, FloatArray, Scored
from awqbench.backends.base import Path as Route
from awqbench.backends.kind import Kind
from awqbench.conformance.verdict import NotOffered
from awqbench.suites.likelihood import encode
from awqbench.worker.client import Worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Written for this purpose: prose, figures and code, so that positions are easy and hard to predict.
TEXT = (
    "The ferry to the island leaves at half past six, when the fog has lifted and the last crate of apples is on "
    "board. In 1987 it carried 4,312 passengers; last year there were 19,060, most of them in July.\n"
    "def fare(age, return_ticket=False):\n    price = 3.20 if age < 14 else 6.40\n    return 2 * price if "
    "return_ticket else price\n"
    "Nobody on the quay could say why the old captain had painted the funnel yellow, but everyone agreed that it "
    "could be seen from the lighthouse, even in November."
)
# Unlike and equal lengths, the shortest among them, in an order that no batching would choose.
LENGTHS = (5, 40, 2, 17, 40, 9, 33)


@dataclass
class Subject:
    """What the checks share. `tolerance` bounds how far two ways to one log-probability may be apart, nats."""

    kind: Kind
    worker: Worker
    folder: Path
    tokenizer: PreTrainedTokenizerBase
    tolerance: float
    settings: dict[str, Any] = field(default_factory=dict)
    # Starts the engine on the model's own weights, where it can run these; None where it cannot.
    unquantized: Callable[[], AbstractContextManager[Worker]] | None = None

    @cached_property
    def ids(self) -> list[int]:
        """The text as token ids."""
        return encode(self.tokenizer, TEXT, special=False)

    @cached_property
    def sequences(self) -> list[list[int]]:
        """Pieces of the text, of `LENGTHS`."""
        return [self.ids[3 * i : 3 * i + length] for i, length in enumerate(LENGTHS)]

    @cached_property
    def passage(self) -> list[int]:
        """The piece whose whole distributions are looked at: 48 tokens."""
        return self.ids[:48]

    @cached_property
    def scored(self) -> list[Scored]:
        """All sequences from their second token on, in one request."""
        self.need("score")
        return self.worker.score(self.sequences, [1] * len(self.sequences))

    @cached_property
    def table(self) -> FloatArray:
        """The passage's log-probabilities [47, vocabulary], prefill."""
        self.need("logprobs")
        return self.rows("prefill")

    def rows(self, path: Route, start: int = 1) -> FloatArray:
        """The passage's log-probabilities on a path [48 - start, vocabulary]."""
        return np.concatenate(list(self.worker.logprobs(self.passage, start, path)))

    def need(self, capability: Capability) -> None:
        """Raise NotOffered without this capability."""
        if not self.worker.offers(capability):
            raise NotOffered(f"no {capability}")
