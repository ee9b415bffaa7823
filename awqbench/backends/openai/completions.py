"""The completions protocol of OpenAI and its extensions, foremost vLLM's: found out by asking, not by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from awqbench.backends.base import Scored, TopK
from awqbench.backends.openai import prompt as prompt_side
from awqbench.backends.openai.dialect import PROBE, Dialect
from awqbench.backends.openai.prompt import Asking
from awqbench.backends.openai.timing import Stream
from awqbench.backends.openai.wire import (
    array,
    best,
    choice,
    logprob,
    member,
    named_id,
    stack,
    token_id,
    token_ids,
    wrong,
)
from awqbench.errors import InvalidMeasurement

_PATH = "/completions"
# At temperature 1 and without truncation even a server that tells its sampler's probabilities tells the model's.
_RAW = {"temperature": 1, "top_p": 1, "max_tokens": 1, "return_tokens_as_token_ids": True}
# What a server's own defaults may hold (a model's generation_config.json in vLLM) is set to nothing.
_GREEDY = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_PLAIN = {"repetition_penalty": 1.0, "ignore_eos": True}
_ROWS = 64


class Completions(Dialect):
    """A server behind /v1/completions."""

    _asking: Asking | None = None
    _ids_from = ""
    _plain: dict[str, Any]
    _stream_fields: dict[str, Any]
    _tokenizer = ""

    def detect(self) -> None:
        """See `Dialect.detect`."""
        self.engine, self.version = self._name()
        if self.max_positions is None and isinstance(length := self.listed.get("max_model_len"), int):
            self.max_positions = length
        if self._takes_ids():
            self._detect_prompt_side()
            if "topk-logprobs" not in self.capabilities:
                self._detect_next_token()
            self._detect_tokenize()
            self._detect_generate()
            self._detect_stream()
        else:
            self._detect_tokenize()

    def _name(self) -> tuple[str, str | None]:
        owner = str(self.listed.get("owned_by") or "unknown")
        reply = self.client.get("//version")
        version = None
        if reply.ok and reply.text.lstrip().startswith("{"):
            version = reply.json().get("version")
        return {"vllm": "vLLM", "sglang": "SGLang"}.get(owner, owner), str(version) if version else None

    def _takes_ids(self) -> bool:
        """Whether a prompt may be token ids, and is taken as it is."""

        def read(answer: Any) -> bool:
            choice(answer)
            usage = answer.get("usage")
            counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            if counted not in (None, len(PROBE)):
                raise InvalidMeasurement(f"a prompt of {len(PROBE)} token ids was counted as {counted} tokens")
            return True

        body = self.body(PROBE, max_tokens=1, temperature=0)
        reply = self.client.post(_PATH, body)
        if reply.status == 404:  # no completions at this address, or no such model
            raise self.client.refusal(reply)
        return bool(self.ask("token ids as a prompt", _PATH, body, read))

    def _detect_prompt_side(self) -> None:
        for asking in prompt_side.WAYS:
            if not self._accepts(asking, 1):
                continue
            self._asking = asking
            self.capabilities += ["score", "topk-logprobs"]
            self.topk = self.largest(partial(self._accepts, asking), self._cap(), asking.name)
            self.told |= {"topk_path": "prefill", "score_path": "prefill", "logprobs_by": asking.name}
            if self.max_positions is not None and self.client.settings.max_positions is None:
                self.max_positions -= 1  # the token that is generated with a prompt takes a position
            return

    def _accepts(self, asking: Asking, k: int) -> bool:
        body = self.body(PROBE, **asking.fields(k))
        return self.ask(f"{asking.name}, k {k}", _PATH, body, lambda answer: asking.read(answer, PROBE, k)) is not None

    def _detect_next_token(self) -> None:
        def accepts(k: int) -> bool:
            body = self.body(PROBE, **_RAW, logprobs=k)
            return self.ask(f"logprobs, k {k}", _PATH, body, lambda answer: _next_token(answer, k)) is not None

        if k := self.largest(accepts, self._cap(), "logprobs"):
            self.capabilities.append("topk-logprobs")
            self.topk = k
            self.told |= {"topk_path": "decode", "logprobs_by": "logprobs of one generated token"}

    def _cap(self) -> int:
        return min(self.client.settings.topk, self.vocab_size or self.client.settings.topk)

    def _detect_generate(self) -> None:
        """Which way the ids of an answer come, and whether the sampler's extras are accepted."""
        ways = ["return_token_ids", "detokenize", "return_tokens_as_token_ids"]
        ways += ["tokenize"] if self._tokenizer else []
        for self._ids_from in ways:
            for self._plain in (_PLAIN, {}):
                body = self._generation(PROBE, 3, set())
                name = f"{self._ids_from}{' with ' if self._plain else ''}{', '.join(self._plain)}"
                if self.ask(name, _PATH, body, self._answer_ids):
                    self.capabilities.append("generate")
                    self.told["generated_ids_by"] = self._ids_from
                    return

    def _generation(self, prompt: list[int], new_tokens: int, stop_ids: set[int]) -> dict[str, Any]:
        fields = {**_GREEDY, **self._plain, "max_tokens": new_tokens}
        if self._plain and stop_ids:
            fields["stop_token_ids"] = sorted(stop_ids)
        if self._ids_from == "return_token_ids":
            fields["return_token_ids"] = True
        elif self._ids_from == "detokenize":  # TensorRT-LLM: no text, so ids
            fields["detokenize"] = False
        elif self._ids_from == "return_tokens_as_token_ids":
            fields |= {"return_tokens_as_token_ids": True, "logprobs": 1}
        return self.body(prompt, **fields)

    def _answer_ids(self, answer: Any) -> list[int]:
        found = choice(answer)
        if self._ids_from in {"return_token_ids", "detokenize"}:
            ids = token_ids(member(found, "token_ids", "choices[0]"), "choices[0].token_ids")
        elif self._ids_from == "tokenize":
            return self.tokenize(_str(member(found, "text", "choices[0]"), "choices[0].text"), special=False)
        else:
            logprobs = member(found, "logprobs", "choices[0]")
            ids = []
            for i, token in enumerate(_generated(logprobs)):
                if (identity := named_id(token) if isinstance(token, str) else token) is None:
                    raise wrong(f"choices[0].logprobs, token {i},", token, "a token id")
                ids.append(identity)
        usage = answer.get("usage")
        counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if counted not in (None, len(ids)):
            raise InvalidMeasurement(f"the server counts {counted} generated tokens and tells {len(ids)} ids")
        return ids

    def generate(self, prompt: list[int], max_new_tokens: int, stop_ids: set[int]) -> list[int]:
        """See `Dialect.generate`. Ids made from text by the server's tokenizer give its text, maybe in other pieces."""
        answer = self.client.demand(_PATH, self._generation(prompt, max_new_tokens, stop_ids))
        ids = self._answer_ids(answer)
        for position, token in enumerate(ids[:max_new_tokens]):
            if token in stop_ids:
                return ids[:position]
        if (
            len(ids) < max_new_tokens
            and choice(answer).get("finish_reason") == "length"
            and self._ids_from != "tokenize"
        ):
            raise InvalidMeasurement(f"the server was cut short after {len(ids)} of {max_new_tokens} tokens")
        return ids[:max_new_tokens]

    def score(self, ids: list[int], start: int) -> Scored:
        """See `Dialect.score`: one request."""
        assert self._asking is not None
        rows = self._asking.read(self.client.demand(_PATH, self.body(ids, **self._asking.fields(1))), ids, 1)[
            start - 1 :
        ]
        own = np.array([row.own for row in rows], np.float32)
        return Scored(own, np.array([row.top[0][0] for row in rows], np.int32))

    def top_rows(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Dialect.top_rows`: one request for all positions, or one for each."""
        if self._asking is not None:
            answer = self.client.demand(_PATH, self.body(ids, **self._asking.fields(k)))
            yield stack([row.top for row in self._asking.read(answer, ids, k)[start - 1 :]], k)
            return

        def after(position: int) -> list[tuple[int, float]]:
            return _next_token(self.client.demand(_PATH, self.body(ids[:position], **_RAW, logprobs=k)), k)

        for low in range(start, len(ids), _ROWS):
            yield stack(list(self.parallel(after, range(low, min(low + _ROWS, len(ids))))), k)

    def _detect_stream(self) -> None:
        usage = {"stream_options": {"include_usage": True}}
        each = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        for fields in (
            {"ignore_eos": True, "return_token_ids": True, **each},
            {"ignore_eos": True, **usage},
            usage,
            {},
        ):
            self._stream_fields = fields
            name = f"stream with {', '.join(fields) or 'nothing else'}"
            if self.streams(name):
                self.capabilities.append("time")
                return

    def stream(self, prompt: list[int], new_tokens: int) -> Stream:
        """See `Dialect.stream`. Tokens are counted by ids, else by usage, else checked against the usage at the end."""
        body = self.body(prompt, **_GREEDY, max_tokens=new_tokens, stream=True, **self._stream_fields)
        seen, guessed, total = 0, False, None
        for stamp, event in self.begin(_PATH, body):
            usage = event.get("usage")
            if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
                total = usage["completion_tokens"]
            if not event.get("choices"):
                continue
            piece = choice(event)
            if isinstance(piece.get("token_ids"), list):
                count = len(piece["token_ids"])
            elif isinstance(usage, dict) and total is not None:
                count = total - seen
            else:
                guessed = True
                count = 1 if piece.get("text") else 0
            seen += count
            yield stamp, count
        if guessed and total != seen:
            told = "never says how many tokens there were" if total is None else f"says that they were {total} tokens"
            raise InvalidMeasurement(f"the server streamed {seen} pieces of text and {told}: gaps cannot be told")

    def _detect_tokenize(self) -> None:
        def read(answer: Any) -> list[int]:
            return token_ids(member(answer, "tokens", "answer"), "tokens")

        for path in ("//tokenize", "/tokenize"):
            body = {"model": self.model, "prompt": "a", "add_special_tokens": False}
            if self.ask(f"tokenize at {self.client.url(path)}", path, body, read):
                self._tokenizer = path
                self.capabilities.append("tokenize")
                return

    def tokenize(self, text: str, special: bool) -> list[int]:
        """See `Dialect.tokenize`."""
        if not text:
            return []
        body = {"model": self.model, "prompt": text, "add_special_tokens": special}
        answer = self.client.demand(self._tokenizer, body)
        return token_ids(member(answer, "tokens", "answer"), "tokens")


def _next_token(answer: Any, k: int) -> list[tuple[int, float]]:
    """The k most likely tokens after a prompt, from the logprobs of one generated token."""
    logprobs = member(choice(answer), "logprobs", "choices[0]")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):  # chat's form, with ids in llama.cpp
        where = "choices[0].logprobs.content[0].top_logprobs"
        tops = array(member(member(logprobs["content"], 0, "content"), "top_logprobs", "content[0]"), where)
        pairs = [(token_id(member(t, "id", where), where), logprob(member(t, "logprob", where), where)) for t in tops]
    else:
        where = "choices[0].logprobs.top_logprobs[0]"
        pairs = prompt_side.named(member(member(logprobs, "top_logprobs", "logprobs"), 0, "top_logprobs"), where)
    return best(pairs, k, where)


def _generated(logprobs: Any) -> list[Any]:
    """The generated tokens as their logprobs name them: an id, or a string that may hold one."""
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        return [token_id(member(each, "id", "logprobs.content"), "logprobs.content") for each in logprobs["content"]]
    return array(member(logprobs, "tokens", "choices[0].logprobs"), "choices[0].logprobs.tokens")


def _str(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, value, "text")
    return value
