"""What one kind of server is asked, and how: a dialect turns the backend's requests into HTTP and back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from awqbench.backends.base import Capability, FloatArray, Scored, TopK
from awqbench.backends.openai.http import TROUBLE, Client, events
from awqbench.backends.openai.timing import Stream, token_times
from awqbench.errors import InvalidMeasurement, NotApplicable

# Ids that every vocabulary has; nothing is read off what they mean.
PROBE = [10, 11, 12]
# Statuses that mean "not this request", while others mean "not you", "not here" or "not now".
_DECLINED = frozenset({400, 404, 405, 413, 415, 422, 500, 501})


class Dialect(ABC):
    """One server after it was asked what it can do. All methods may be called from several threads at once.

    `capabilities` holds what it answered rightly, `topk` the largest k, `answers` what it said to each question, and
    `told` what else is true of it. `parallel` is map, or one that has several requests in flight.
    """

    engine = "unknown"
    version: str | None = None
    # How many requests are worth sending at once; None: as many as the settings allow.
    slots: int | None = None

    def __init__(self, client: Client, model: str, listed: dict[str, Any]) -> None:
        self.client, self.model, self.listed = client, model, listed
        self.capabilities: list[Capability] = []
        self.topk: int | None = None
        self.answers: dict[str, str] = {}
        self.told: dict[str, Any] = {}
        self.parallel: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]] = map
        self.max_positions: int | None = client.settings.max_positions
        self.vocab_size: int | None = client.settings.vocab_size

    @abstractmethod
    def detect(self) -> None:
        """Ask the server what it can do, with prompts of a few tokens."""

    def score(self, ids: list[int], start: int) -> Scored:
        """See `Backend.score`, for one sequence."""
        raise NotApplicable("this server does not tell the log-probabilities of a given text")

    def top_rows(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Backend.topk_logprobs`."""
        raise NotApplicable("this server does not tell its most likely tokens by their ids")

    def full_rows(self, ids: list[int], start: int) -> Iterator[FloatArray]:
        """See `Backend.logprobs`, path "decode"."""
        raise NotApplicable("this server does not tell whole distributions")

    def generate(self, prompt: list[int], max_new_tokens: int, stop_ids: set[int]) -> list[int]:
        """See `Backend.generate`, for one prompt."""
        raise NotApplicable("this server does not tell the ids of what it generates")

    def stream(self, prompt: list[int], new_tokens: int) -> Stream:
        """One timed generation."""
        raise NotApplicable("this server does not stream in a way that tokens can be counted")

    def tokenize(self, text: str, special: bool) -> list[int]:
        """See `Backend.tokenize`, for one text."""
        raise NotApplicable("this server has no tokenizer endpoint")

    def body(self, prompt: list[int], **fields: Any) -> dict[str, Any]:
        """A request: the user's further fields, overruled by those that the measurement rests on."""
        return {**self.client.settings.extra_body, "model": self.model, "prompt": prompt, **fields}

    def largest(self, accepts: Callable[[int], bool], cap: int, question: str) -> int:
        """The largest k up to `cap` that `accepts`; 0 where not even 1 is.

        `accepts(k)` asks "question, k"; of its answers those for 1, the largest k and the next one are kept.
        """
        if not accepts(1):
            return 0
        low, high = (cap, cap + 1) if accepts(cap) else (1, cap)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if accepts(middle) else (low, middle)
        kept = {f"{question}, k {k}" for k in (1, low, low + 1)}
        self.answers = {q: a for q, a in self.answers.items() if q in kept or not q.startswith(f"{question}, k ")}
        return low

    def begin(self, path: str, body: dict[str, Any]) -> Iterator[tuple[float, Any]]:
        """Send a request that is answered by a stream of events, once; it is not repeated, since it is timed."""
        deadline = time.monotonic() + self.client.settings.timeout_s
        try:
            response = self.client.open("POST", path, body, deadline)
        except TROUBLE as error:
            raise InvalidMeasurement(f"{self.client.url(path)}: the connection broke ({error!r})") from error
        if response.status != 200:
            raise self.client.refusal(self.client.finish(path, response, deadline))
        return events(self.client, path, response, deadline)

    def streams(self, question: str) -> bool:
        """Whether the tokens of a short stream can be counted; the answer to `question` says why not."""
        self.client.close()  # a connection that was idle may be about to end
        try:
            token_times(list(self.stream(PROBE, 4)), 4)
        except InvalidMeasurement as error:
            self.answers[question] = str(error)
            return False
        self.answers[question] = "yes"
        return True

    def ask(self, question: str, path: str, body: dict[str, Any], read: Any) -> Any:
        """What `read` makes of the answer; None where the server declines or answers something else.

        Either way `answers[question]` says how it went. Raises UserError for a key or an address that is wrong.
        """
        reply = self.client.post(path, body)
        if not reply.ok:
            if reply.status not in _DECLINED:
                raise self.client.refusal(reply)
            self.answers[question] = f"{reply.status}: {reply.say}"
            return None
        try:
            found = read(reply.json())
        except InvalidMeasurement as error:
            self.answers[question] = str(error)
            return None
        self.answers[question] = "yes"
        return found
