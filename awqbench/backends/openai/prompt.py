"""The log-probabilities of a prompt's own tokens: the ways to ask for them, and to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from awqbench.backends.openai.wire import array, best, choice, logprob, member, named_id, token_id, token_ids, wrong
from awqbench.errors import InvalidMeasurement

Pairs = list[tuple[int, float]]
_ONE = {"max_tokens": 1, "temperature": 0}


@dataclass(frozen=True, slots=True)
class Row:
    """One position: the log-probability of the prompt's own token, and the k most likely tokens."""

    own: float
    top: Pairs


@dataclass(frozen=True, slots=True)
class Asking:
    """One way to ask: the fields that go with a prompt, and how the answer is read."""

    name: str
    fields: Callable[[int], dict[str, Any]]
    # (answer, prompt, k) -> a row for each token of the prompt but the first; InvalidMeasurement names a wrong field.
    read: Callable[[Any, list[int], int], list[Row]]


def _prompt_logprobs(answer: Any, ids: list[int], k: int) -> list[Row]:
    """vLLM's prompt_logprobs: for each position but the first an object, id -> {logprob, rank}; own token included."""
    found = choice(answer)
    echoed = found.get("prompt_token_ids")
    if echoed is not None and token_ids(echoed, "choices[0].prompt_token_ids") != ids:
        raise InvalidMeasurement("the server scored other token ids than it was sent")
    rows = array(member(found, "prompt_logprobs", "choices[0]"), "choices[0].prompt_logprobs", len(ids))
    result = []
    for position, row in enumerate(rows[1:], 1):
        where = f"choices[0].prompt_logprobs[{position}]"
        if not isinstance(row, dict):
            raise wrong(where, row, "an object")
        pairs = [
            (token_id(name, where), logprob(member(value, "logprob", where), where)) for name, value in row.items()
        ]
        result.append(_row(pairs, ids[position], k, where))
    return result


def _echo(answer: Any, ids: list[int], k: int) -> list[Row]:
    """OpenAI's echo with logprobs, tokens named by id (vLLM's return_tokens_as_token_ids)."""
    logprobs = member(choice(answer), "logprobs", "choices[0]")
    tokens, own, tops = (
        array(member(logprobs, name, "choices[0].logprobs"), f"choices[0].logprobs.{name}")[: len(ids)]
        for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    if [named_id(token) for token in tokens] != ids:
        raise InvalidMeasurement("the server's echo does not name the prompt's token ids")
    if not len(tokens) == len(own) == len(tops):
        raise InvalidMeasurement("the server's choices[0].logprobs has arrays of different lengths")
    result = []
    for position in range(1, len(ids)):
        where = f"choices[0].logprobs.top_logprobs[{position}]"
        pairs = dict(named(tops[position], where))
        pairs[ids[position]] = logprob(own[position], f"choices[0].logprobs.token_logprobs[{position}]")
        result.append(_row(list(pairs.items()), ids[position], k, where))
    return result


def named(row: Any, where: str) -> Pairs:
    """Pairs from an object "token_id:123" -> log-probability."""
    if not isinstance(row, dict):
        raise wrong(where, row, "an object")
    pairs = []
    for name, value in row.items():
        if (identity := named_id(name)) is None:
            raise wrong(where, name, 'a token as "token_id:ID": text does not say which token it is')
        pairs.append((identity, logprob(value, where)))
    return pairs


def _row(pairs: Pairs, own: int, k: int, where: str) -> Row:
    told = dict(pairs)
    if own not in told:
        raise InvalidMeasurement(f"the server's {where} does not hold the prompt's own token {own}")
    return Row(told[own], best(pairs, k, where))


# The first that works is used. A token is generated with each: servers that are asked for none make one all the same.
WAYS = (
    Asking("prompt_logprobs", lambda k: {**_ONE, "prompt_logprobs": k, "return_token_ids": True}, _prompt_logprobs),
    # Servers that refuse fields they do not know.
    Asking("prompt_logprobs alone", lambda k: {**_ONE, "prompt_logprobs": k}, _prompt_logprobs),
    Asking(
        "echo and logprobs",
        lambda k: {**_ONE, "echo": True, "logprobs": k, "return_tokens_as_token_ids": True},
        _echo,
    ),
)
