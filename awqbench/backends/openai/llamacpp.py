"""llama.cpp's own server: its /completion takes token ids, names tokens by id, and can tell whole distributions.

Its prompt side tells nothing, so texts are scored on the decode path: one request for each position, the prefix in the
server's cache. To learn one token's log-probability that token is forced (logit_bias): what the server reports are the
model's probabilities, before the bias. A forced token that is no text by itself (the first byte of a character) comes
without probabilities; the whole distribution is asked for in its place, under a forced token that is text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from awqbench.backends.base import FloatArray, Scored, TopK
from awqbench.backends.openai.dialect import PROBE, Dialect
from awqbench.backends.openai.timing import Stream
from awqbench.backends.openai.wire import array, best, logprob, member, stack, token_id, token_ids, wrong
from awqbench.errors import InvalidMeasurement, NotApplicable

_PATH = "//completion"
_FORCED = 1e4
# The server's own sampler settings must not enter: temperature 0 alone is the likeliest token.
_GREEDY = {"temperature": 0, "samplers": ["temperature"], "n_probs": 0}
_ROUNDING = 1e-2
# Rows of full-vocabulary log-probabilities sent on at once.
_ROWS = 8
_TOP_ROWS = 64


class LlamaCpp(Dialect):
    """llama.cpp's server behind base_url; /v1 is its OpenAI side, which tells less."""

    engine = "llama.cpp"
    _text_token = -1

    def detect(self) -> None:
        """See `Dialect.detect`."""
        props = self.client.get("//props")
        told = props.json() if props.ok else {}
        self.slots = told.get("total_slots") if isinstance(told, dict) else None
        self.version = str(told.get("build_info") or "") or None
        meta = self.listed.get("meta") or {}
        settings = told.get("default_generation_settings") or {}
        self.max_positions = self.max_positions or settings.get("n_ctx") or meta.get("n_ctx")
        self.vocab_size = meta.get("n_vocab") or self.vocab_size
        self.told |= {
            "weight_bytes": meta.get("size"),
            "weight_type": told.get("model_ftype") or meta.get("ftype"),
            "parameters": meta.get("n_params"),
            "trained_positions": meta.get("n_ctx_train"),
            "slots": self.slots,
        }
        if not self.ask("/tokenize", "//tokenize", {"content": "a"}, self._tokens):
            raise NotApplicable(f"{self.client.url('//tokenize')}: {self.answers['/tokenize']}")
        self._text_token = self.tokenize("a", special=False)[-1]
        self.capabilities.append("tokenize")
        if self.ask("generation in token ids", _PATH, self._generation(PROBE, 2), _generated):
            self.capabilities.append("generate")
        if self._tells_probabilities():
            self.capabilities += ["score", "topk-logprobs"]
            self.topk = min(self.client.settings.topk, self.vocab_size or self.client.settings.topk)
            self.told |= {"topk_path": "decode", "score_path": "decode"}
            if self.vocab_size and self.client.settings.whole:
                self.capabilities.append("decode-logprobs")
        self._detect_stream()

    def _tells_probabilities(self) -> bool:
        try:
            self._next(PROBE, 2)
        except InvalidMeasurement as error:
            self.answers["log-probabilities by id"] = str(error)
            return False
        self.answers["log-probabilities by id"] = "yes"
        return True

    def tokenize(self, text: str, special: bool) -> list[int]:
        """See `Dialect.tokenize`. Names of special tokens in a text are read as such, as tokenizers do."""
        body = {"content": text, "add_special": special, "parse_special": True}
        return self._tokens(self.client.demand("//tokenize", body))

    def score(self, ids: list[int], start: int) -> Scored:
        """See `Dialect.score`."""
        own, likeliest = [], []
        for position in range(start, len(ids)):
            found = self._forced(ids[:position], ids[position], 1)
            if found is None:
                row = next(self.full_rows(ids[: position + 1], position))[0]
                own.append(float(row[ids[position]]))
                likeliest.append(int(row.argmax()))
            else:
                own.append(logprob(found["logprob"], "completion_probabilities[0].logprob"))
                likeliest.append(_pairs(found, 1)[0][0])
        return Scored(np.array(own, np.float32), np.array(likeliest, np.int32))

    def top_rows(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Dialect.top_rows`: one request for each position, one after another, as decoding goes."""
        for low in range(start, len(ids), _TOP_ROWS):
            yield stack([self._next(ids[:at], k) for at in range(low, min(low + _TOP_ROWS, len(ids)))], k)

    def full_rows(self, ids: list[int], start: int) -> Iterator[FloatArray]:
        """See `Dialect.full_rows`: a reply holds the whole vocabulary as JSON, some megabytes for a large one."""
        size = self.vocab_size
        assert size is not None
        for low in range(start, len(ids), _ROWS):
            rows = np.full((min(_ROWS, len(ids) - low), size), np.nan, np.float32)
            for row, at in zip(rows, range(low, len(ids)), strict=False):
                top = self._next(ids[:at], size)
                told = np.array([token for token, _ in top])
                if told.max() >= size:
                    raise InvalidMeasurement(f"the server names token {told.max()} of a vocabulary of {size}")
                row[told] = [value for _, value in top]
            yield _normalized(rows)

    def _next(self, prefix: list[int], k: int) -> list[tuple[int, float]]:
        """The k most likely tokens after a prefix."""
        found = self._forced(prefix, self._text_token, k)
        if found is None:
            raise InvalidMeasurement("the server's answer has no completion_probabilities")
        return _pairs(found, k)

    def _forced(self, prefix: list[int], token: int, k: int) -> dict[str, Any] | None:
        """What the server tells of the token after a prefix when it must be this one; None where it tells nothing."""
        fields = {**_GREEDY, "n_predict": 1, "n_probs": k, "logit_bias": [[token, _FORCED]]}
        answer = self.client.demand(_PATH, self.body(prefix, **fields, cache_prompt=True, return_tokens=True))
        _whole(answer)
        if token_ids(member(answer, "tokens", "answer"), "tokens") not in ([token], []):
            raise InvalidMeasurement(f"the server did not generate token {token}, which it was made to")
        told = array(answer.get("completion_probabilities", []), "completion_probabilities")
        if not told:
            return None
        found = told[0]
        if token_id(member(found, "id", "completion_probabilities[0]"), "completion_probabilities[0].id") != token:
            raise InvalidMeasurement(
                f"the server tells of token {found['id']}, not of {token}, which it was made to take"
            )
        return {**found, "logprob": member(found, "logprob", "completion_probabilities[0]")}

    def generate(self, prompt: list[int], max_new_tokens: int, stop_ids: set[int]) -> list[int]:
        """See `Dialect.generate`. An end-of-sequence token that is no stop id is generated past."""
        ids: list[int] = []
        while len(ids) < max_new_tokens:
            answer = self.client.demand(_PATH, self._generation([*prompt, *ids], max_new_tokens - len(ids)))
            more = _generated(answer)
            for token in more:
                if token in stop_ids:
                    return ids
                ids.append(token)
            if len(ids) < max_new_tokens and (not more or answer.get("stop_type") != "eos"):
                why = answer.get("stop_type")
                raise InvalidMeasurement(f"the server stopped after {len(ids)} of {max_new_tokens} tokens: {why}")
        return ids

    def _generation(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        return self.body(prompt, **_GREEDY, n_predict=new_tokens, return_tokens=True, cache_prompt=True)

    def _detect_stream(self) -> None:
        if self.streams("stream"):
            self.capabilities.append("time")
            self.told["timed_tokens"] = "the same text token forced at every step: each is an event of its own"

    def stream(self, prompt: list[int], new_tokens: int) -> Stream:
        """See `Dialect.stream`. Half a character would be held back, so a token that is text is forced."""
        body = self.body(
            prompt, **_GREEDY, n_predict=new_tokens, stream=True, cache_prompt=False, return_tokens=True,
            ignore_eos=True, logit_bias=[[self._text_token, _FORCED]],
        )  # fmt: skip
        for stamp, event in self.begin(_PATH, body):
            yield stamp, len(token_ids(member(event, "tokens", "event"), "tokens"))

    @staticmethod
    def _tokens(answer: Any) -> list[int]:
        return token_ids(member(answer, "tokens", "answer"), "tokens")


def _pairs(found: dict[str, Any], k: int) -> list[tuple[int, float]]:
    where = "completion_probabilities[0].top_logprobs"
    tops = array(member(found, "top_logprobs", "completion_probabilities[0]"), where)
    pairs = [(token_id(member(t, "id", where), where), logprob(member(t, "logprob", where), where)) for t in tops]
    return best(pairs, k, where)


def _normalized(rows: FloatArray) -> FloatArray:
    """Rows that add up to one: the server sums probabilities in float32, which leaves 1e-4 over a large vocabulary.

    Raises InvalidMeasurement where they are further from it than rounding can be.
    """
    mass = np.exp(rows.astype(np.float64)).sum(axis=1, keepdims=True)
    if not (np.abs(mass - 1) < _ROUNDING).all():
        raise InvalidMeasurement(f"the server's whole distributions add up to {mass.min():.4g} to {mass.max():.4g}")
    normalized: FloatArray = (rows - np.log(mass)).astype(np.float32)
    return normalized


def _generated(answer: Any) -> list[int]:
    _whole(answer)
    ids = token_ids(member(answer, "tokens", "answer"), "tokens")
    if answer.get("tokens_predicted") not in (None, len(ids)):
        raise InvalidMeasurement(f"the server predicted {answer['tokens_predicted']} tokens and tells {len(ids)} ids")
    return ids


def _whole(answer: Any) -> None:
    """Refuse an answer to a prompt that the server shortened."""
    if not isinstance(answer, dict):
        raise wrong("answer", answer, "an object")
    if answer.get("truncated"):
        raise InvalidMeasurement("the server shortened the prompt to fit its context")
