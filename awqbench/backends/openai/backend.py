"""Any server that speaks OpenAI's completions protocol, as a backend. Standard library and numpy only.

What the server can do is found by asking it when the backend loads. Token ids go to it, never text, and what it does
not tell is not made up: a log-probability that is missing is an error, not a low value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from awqbench.backends.base import BackendBase, FloatArray, Path, Scored, Timing, TopK
from awqbench.backends.openai.completions import Completions
from awqbench.backends.openai.dialect import Dialect
from awqbench.backends.openai.http import Client
from awqbench.backends.openai.llamacpp import LlamaCpp
from awqbench.backends.openai.settings import Settings, read_settings
from awqbench.backends.openai.sglang import SGLang
from awqbench.backends.openai.timing import time_batch
from awqbench.backends.openai.wire import array, member
from awqbench.errors import InvalidMeasurement, NotApplicable, UserError

# True of every server, so that the record says so.
NOT_TOLD = (
    "which file the weights come from and their hash, the compute type, the kernels, memory, load time, "
    "and whether other requests ran at the same time"
)


class OpenAIBackend(BackendBase):
    """The client of one server. Its weights, its kernels and its memory are the server's own affair."""

    settings: Settings
    client: Client
    dialect: Dialect
    pool: ThreadPoolExecutor

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`. Options read: unquantized, settings.

        `load_s` is None: the weights were loaded before. Raises UserError where nobody answers, the key or the model is
        wrong, or the context's length is unknown; NotApplicable for a server that can be asked nothing in token ids.
        """
        started = time.perf_counter()
        self.settings = read_settings(options["settings"], unquantized=bool(options.get("unquantized")))
        self.client = Client(self.settings)
        self.pool = ThreadPoolExecutor(self.settings.concurrency, "request")
        try:
            return self._ask_what_it_is(started)
        except BaseException:
            self.unload()
            raise

    def _ask_what_it_is(self, started: float) -> dict[str, Any]:
        model, listed, server = self._model()
        self.dialect = _dialect(listed, server)(self.client, model, listed)
        self.dialect.parallel = self._parallel
        self.dialect.detect()
        found = self.dialect
        if not found.capabilities:
            said = "; ".join(f"{question}: {answer}" for question, answer in found.answers.items())
            raise NotApplicable(f"{self.settings.base_url} can be asked nothing in token ids ({said})")
        if found.max_positions is None:
            raise UserError(f"{self.settings.base_url} does not tell its context's length: set options.max_positions")
        return {
            "vocab_size": found.vocab_size,
            "max_positions": found.max_positions,
            "dtype": self.settings.dtype or "unknown",
            "device": "remote",
            "kernel": "unknown (remote server)",
            "weight_bytes": found.told.pop("weight_bytes", None),
            "load_s": None,
            "engine": found.engine,
            "engine_version": found.version,
            "capabilities": found.capabilities,
            **({"topk": found.topk} if found.topk else {}),
            **{key: value for key, value in found.told.items() if value is not None},
            "server": {
                "url": self.settings.base_url,
                "model": model,
                "header": server or None,
                "concurrency": self._in_flight(),
                "asked": found.answers,
                "asking_s": time.perf_counter() - started,
            },
            "not_told": NOT_TOLD,
        }

    def _model(self) -> tuple[str, dict[str, Any], str]:
        """The model's name, what /v1/models says of it, and the Server header."""
        reply = self.client.get("/models")
        wanted = self.settings.model
        if reply.status in {404, 405, 501} and wanted:
            return wanted, {}, str(reply.headers.get("Server", ""))
        if not reply.ok:
            raise self.client.refusal(reply)
        listed = {
            str(member(each, "id", "data[]")): each
            for each in array(member(reply.json(), "data", "list of models"), "data")
        }
        if wanted is None and len(listed) != 1:
            raise UserError(f"options.model is missing, and the server has {len(listed)} models ({', '.join(listed)})")
        name = wanted or next(iter(listed))
        if name not in listed and listed:
            raise UserError(f"options.model is {name!r}, which the server does not list (allowed: {', '.join(listed)})")
        return name, listed.get(name, {}), str(reply.headers.get("Server", ""))

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """See `Backend.score`: a request for each sequence, several in flight."""
        self._needs("score")
        return self._parallel(lambda pair: self._scored(*pair), zip(sequences, starts, strict=True))

    def _scored(self, ids: list[int], start: int) -> Scored:
        found = self.dialect.score(ids, start)
        if not len(found.logprobs) == len(found.argmax) == len(ids) - start:
            raise InvalidMeasurement(f"the server scored {len(found.logprobs)} of {len(ids) - start} tokens")
        return found

    def topk_logprobs(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Backend.topk_logprobs`."""
        self._needs("topk-logprobs")
        if not 1 <= k <= (self.dialect.topk or 0):
            raise NotApplicable(f"k is {k} (allowed: 1 to {self.dialect.topk}, the most that this server tells)")
        return self.dialect.top_rows(ids, start, k)

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """See `Backend.logprobs`: on the decode path of llama.cpp's server only."""
        if path != "decode":
            raise NotApplicable("no server tells whole distributions of a prompt's positions")
        self._needs("decode-logprobs")
        return self.dialect.full_rows(ids, start)

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """See `Backend.generate`."""
        self._needs("generate")
        stops = set(stop_ids)
        return list(self._parallel(lambda prompt: self.dialect.generate(prompt, max_new_tokens, stops), prompts))

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """See `Backend.time`: as the client sees it, so the network and the server's queue are in it."""
        self._needs("time")
        if self.dialect.slots and len(prompts) > self.dialect.slots:
            raise NotApplicable(
                f"a batch of {len(prompts)} would wait in line: the server has {self.dialect.slots} slots"
            )
        return time_batch(self.client, prompts, new_tokens, self.dialect.stream)

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """See `Backend.tokenize`."""
        self._needs("tokenize")
        return list(self._parallel(lambda text: self.dialect.tokenize(text, special), texts))

    def memory(self) -> dict[str, int]:
        """Nothing: this process holds no weights, and no server tells what it takes."""
        return {}

    def unload(self) -> None:
        """Close the connections; the server goes on."""
        self.pool.shutdown(cancel_futures=True)
        self.client.close_all()

    def _needs(self, capability: str) -> None:
        if capability not in self.dialect.capabilities:
            asked = "; ".join(f"{question}: {answer}" for question, answer in self.dialect.answers.items())
            raise NotApplicable(f"this server has no {capability} ({asked})")

    def _in_flight(self) -> int:
        """Requests sent at once: more than the server has slots for would push each other's prefixes out of them."""
        return min(self.settings.concurrency, self.dialect.slots or self.settings.concurrency)

    def _parallel(self, ask: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """ask(item) of each item, in order, with a bounded number in flight; an error ends what is left."""
        left = list(items)
        size = self._in_flight()
        running = [self.pool.submit(ask, item) for item in left[:size]]
        try:
            for turn in range(len(left)):
                yield running[turn].result()
                if turn + size < len(left):
                    running.append(self.pool.submit(ask, left[turn + size]))
        finally:
            for future in running:
                future.cancel()


def _dialect(listed: dict[str, Any], server: str) -> type[Dialect]:
    """The way to speak to a server, by its own words: some tell more beside the OpenAI protocol than in it."""
    if server.strip() == "llama.cpp" or listed.get("owned_by") == "llamacpp":
        return LlamaCpp
    return SGLang if listed.get("owned_by") == "sglang" else Completions
