"""From text to scored token ids: what the tasks and fairness suites share. Tokenisation follows lm-eval's HFLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from awqbench.backends.base import Scored
from awqbench.errors import InvalidMeasurement, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from awqbench.worker.client import Worker

# One request to a worker has one deadline, so a large task is sent in pieces.
REQUEST_SEQUENCES = 256

Progress = Callable[[int, int], None]
Pair = tuple[Sequence[int], Sequence[int]]  # context ids (at least one), continuation ids (at least one)


class Scorer(Protocol):
    """The part of a worker's client that scoring needs."""

    def score(
        self, sequences: Sequence[Sequence[int]], starts: Sequence[int], progress: Progress | None = None
    ) -> list[Scored]:
        """Log-probabilities of each sequence's own tokens from its start on."""


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that stands before a text without context: BOS, else EOS. Raises UserError when there is neither."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise UserError("the tokenizer has neither a BOS nor an EOS token, so a text without context cannot be scored")


def encode(tokenizer: PreTrainedTokenizerBase, text: str, special: bool | None = None) -> list[int]:
    """Token ids as HFLM makes them: special tokens by the tokenizer's default, no second BOS, no EOS at the end."""
    if special is None and tokenizer.bos_token and text.startswith(str(tokenizer.bos_token)):
        special = False
    ids: list[int] = tokenizer.encode(text) if special is None else tokenizer.encode(text, add_special_tokens=special)
    # Some tokenizers end every text with EOS: scored as if it were part of an answer, it would swallow the answer.
    end = tokenizer.eos_token_id
    appended = special is None and len(ids) > 1 and ids[-1] == end != tokenizer.bos_token_id
    return ids[:-1] if appended and not text.endswith(str(tokenizer.eos_token)) else ids


def encode_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of context and continuation, split where the context's own ids end; an empty context becomes BOS."""
    stripped = context.rstrip()
    if not stripped:
        prefix, ids = prefix_id(tokenizer), encode(tokenizer, context + continuation, special=False)
        return ([prefix], ids) if ids[:1] != [prefix] else (ids[:1], ids[1:])
    whole = encode(tokenizer, context + continuation)
    cut = len(encode(tokenizer, stripped))
    return whole[:cut], whole[cut:]


def room_of(worker: Worker, asked_whole: int) -> int:
    """Tokens of the longest question that an engine is asked: what it holds, and no more than the reference does."""
    holds = int(worker.description["max_positions"])
    return min(holds, asked_whole) if asked_whole else holds


def check_room(length: int, room: int, asked_whole: int) -> None:
    """Raise InvalidMeasurement for a question that this engine has to cut where the reference, up to `asked_whole`
    tokens, is asked all of it: the difference would be one of questions. A token less, as servers have, is let pass."""
    if room + 1 < min(length, asked_whole):
        raise InvalidMeasurement(
            f"a question of {length} tokens does not fit in the {room} that this engine is run with, and the reference "
            "is asked it whole: give the engine more (max_model_len, context or max_positions in its options)"
        )


def check_pair(pair: Pair, max_positions: int, asked_whole: int) -> None:
    """Raise InvalidMeasurement for a continuation that is empty or alone too long, and as `check_room` does."""
    context, continuation = pair
    if not continuation:
        raise InvalidMeasurement("a continuation without tokens of its own cannot be scored")
    check_room(len(context) + len(continuation), max_positions, asked_whole)
    if len(continuation) >= max_positions:
        raise InvalidMeasurement(f"a continuation of {len(continuation)} tokens does not fit in {max_positions}")


def score_pairs(
    worker: Scorer,
    pairs: Sequence[Pair],
    max_positions: int,
    progress: Progress | None = None,
    asked_whole: int = 0,
) -> list[Scored]:
    """Score each continuation given its context, in order; `max_positions` counts context and continuation together.

    A context that is too long loses its beginning, as in HFLM. Equal pairs are computed once, and pairs of one context
    are asked together, so that an engine may compute it once; the longest first. Raises
    InvalidMeasurement for a log-probability that is not a number, and as `check_pair` does.
    """
    jobs: dict[tuple[tuple[int, ...], int], int] = {}
    places = []
    for context, continuation in pairs:
        check_pair((context, continuation), max_positions, asked_whole)
        sequence = (*context, *continuation)[-max_positions:]
        places.append(jobs.setdefault((sequence, len(sequence) - len(continuation)), len(jobs)))
    unique = list(jobs)
    reach: dict[tuple[int, ...], int] = {}
    for sequence, start in unique:
        reach[sequence[:start]] = max(len(sequence), reach.get(sequence[:start], 0))
    rank = {context: place for place, context in enumerate(sorted(reach, key=lambda context: -reach[context]))}
    order = sorted(range(len(unique)), key=lambda i: rank[unique[i][0][: unique[i][1]]])
    scored: dict[int, Scored] = {}
    for low in range(0, len(order), REQUEST_SEQUENCES):
        piece = order[low : low + REQUEST_SEQUENCES]
        inner = _shifted(progress, low, len(order))
        results = worker.score([unique[i][0] for i in piece], [unique[i][1] for i in piece], inner)
        scored.update(zip(piece, results, strict=True))
    if any(result.nll != result.nll for result in scored.values()):
        raise InvalidMeasurement("a log-probability is not a number")
    return [scored[place] for place in places]


def _shifted(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    return (lambda done, _: progress(done_before + done, total)) if progress else None
