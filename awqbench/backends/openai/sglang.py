"""SGLang's own /generate, which names tokens by their ids where its OpenAI side names them by their text.

Written after its documentation and its client's source; the tests know it as a double only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from awqbench.backends.base import Scored, TopK
from awqbench.backends.openai.completions import Completions
from awqbench.backends.openai.dialect import PROBE
from awqbench.backends.openai.timing import Stream
from awqbench.backends.openai.wire import array, best, logprob, member, stack, token_id, token_ids
from awqbench.errors import InvalidMeasurement

_PATH = "//generate"
_GREEDY = {"temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0}


class SGLang(Completions):
    """An SGLang server; its tokenizer endpoint is the one that vLLM has."""

    def detect(self) -> None:
        """See `Dialect.detect`."""
        self.engine, self.version = "SGLang", None
        info = self.client.get("//get_server_info")
        if info.ok and isinstance(told := info.json(), dict):
            self.version = str(told.get("version") or "") or None
        if self.max_positions is None and isinstance(length := self.listed.get("max_model_len"), int):
            self.max_positions = length
        self._detect_tokenize()
        if self._accepts_top(1):
            self.capabilities += ["score", "topk-logprobs"]
            self.topk = self.largest(self._accepts_top, self._cap(), "top_logprobs_num")
            self.told |= {"topk_path": "prefill", "score_path": "prefill", "logprobs_by": "/generate"}
        if self.ask("generation in token ids", _PATH, self._request(PROBE, 2), _output):
            self.capabilities.append("generate")
        if self.streams("stream"):
            self.capabilities.append("time")

    def _request(
        self, ids: list[int], new_tokens: int, stop_ids: Collection[int] = (), **fields: Any
    ) -> dict[str, Any]:
        sampling = {**_GREEDY, "max_new_tokens": new_tokens, "ignore_eos": True, "stop_token_ids": sorted(stop_ids)}
        return {**self.client.settings.extra_body, "input_ids": ids, "sampling_params": sampling, **fields}

    def _scoring(self, ids: list[int], k: int) -> dict[str, Any]:
        return self._request(ids, 0, return_logprob=True, logprob_start_len=0, top_logprobs_num=k)

    def _accepts_top(self, k: int) -> bool:
        body = self._scoring(PROBE, k)
        return self.ask(f"top_logprobs_num, k {k}", _PATH, body, lambda answer: _rows(answer, PROBE, k)) is not None

    def score(self, ids: list[int], start: int) -> Scored:
        """See `Dialect.score`."""
        rows = _rows(self.client.demand(_PATH, self._scoring(ids, 1)), ids, 1)[start - 1 :]
        own = np.array([row[0] for row in rows], np.float32)
        return Scored(own, np.array([row[1][0][0] for row in rows], np.int32))

    def top_rows(self, ids: list[int], start: int, k: int) -> Iterator[TopK]:
        """See `Dialect.top_rows`."""
        rows = _rows(self.client.demand(_PATH, self._scoring(ids, k)), ids, k)[start - 1 :]
        yield stack([top for _, top in rows], k)

    def generate(self, prompt: list[int], max_new_tokens: int, stop_ids: set[int]) -> list[int]:
        """See `Dialect.generate`."""
        ids = _output(self.client.demand(_PATH, self._request(prompt, max_new_tokens, stop_ids)))
        stop = next((at for at, token in enumerate(ids) if token in stop_ids), None)
        if stop is None and len(ids) < max_new_tokens:
            raise InvalidMeasurement(f"the server stopped after {len(ids)} of {max_new_tokens} tokens")
        return ids[:stop]

    def stream(self, prompt: list[int], new_tokens: int) -> Stream:
        """See `Dialect.stream`. The answer's meta_info counts its tokens so far."""
        seen = 0
        for stamp, event in self.begin(_PATH, self._request(prompt, new_tokens, stream=True)):
            total = member(member(event, "meta_info", "event"), "completion_tokens", "meta_info")
            if not isinstance(total, int) or total < seen:
                raise InvalidMeasurement(f"the server's meta_info.completion_tokens is {total!r} after {seen}")
            yield stamp, total - seen
            seen = total


def _rows(answer: Any, ids: list[int], k: int) -> list[tuple[float, list[tuple[int, float]]]]:
    """(own log-probability, k most likely) of each token but the first; entries are [log-probability, id, text]."""
    meta = member(answer, "meta_info", "answer")
    own = array(member(meta, "input_token_logprobs", "meta_info"), "meta_info.input_token_logprobs", len(ids))
    tops = array(member(meta, "input_top_logprobs", "meta_info"), "meta_info.input_top_logprobs", len(ids))
    rows = []
    for at in range(1, len(ids)):
        where = f"meta_info.input_token_logprobs[{at}]"
        if token_id(member(own[at], 1, where), where) != ids[at]:
            raise InvalidMeasurement(f"the server's {where} is of another token than {ids[at]}")
        place = f"meta_info.input_top_logprobs[{at}]"
        pairs = [
            (token_id(member(each, 1, place), place), logprob(member(each, 0, place), place))
            for each in array(tops[at], place)
        ]
        rows.append((logprob(member(own[at], 0, where), where), best(pairs, k, place)))
    return rows


def _output(answer: Any) -> list[int]:
    return token_ids(member(answer, "output_ids", "answer"), "output_ids")
