"""Checks of what is continued: generation and its timing."""

from __future__ import annotations

import math

import numpy as np

from awqbench.conformance.subject import Subject
from awqbench.conformance.verdict import Failed, NotOffered, within
from awqbench.errors import NotApplicable

NEW_TOKENS = 12


def generation_is_greedy(subject: Subject) -> str:
    """Every generated token is the most likely one after those before it."""
    prompts, answers = _answers(subject)
    behind = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*prompt, *answer]
        if subject.worker.offers("logprobs"):
            table = np.concatenate(list(subject.worker.logprobs(ids, len(prompt), "prefill")))
            behind = max(behind, float((table.max(axis=1) - table[np.arange(len(answer)), answer]).max()))
        elif subject.worker.offers("score"):
            scored = subject.worker.score([ids], [len(prompt)])[0]
            for place in np.flatnonzero(scored.argmax != answer):
                rival = [*ids[: len(prompt) + place], int(scored.argmax[place])]
                best = subject.worker.score([rival], [len(rival) - 1])[0].logprobs[0]
                behind = max(behind, float(best - scored.logprobs[place]))
        elif subject.worker.offers("topk-logprobs"):
            behind = max(behind, _behind_the_top(subject, ids, len(prompt)))
        else:
            raise NotOffered("no log-probabilities to compare with")
    return within("a token is short of the most likely by", behind, subject.tolerance)


def generation_stops(subject: Subject) -> str:
    """It ends after max_new_tokens, or before the first stop id; neither the prompt nor the stop id is in it."""
    prompts, answers = _answers(subject)
    lengths = [len(answer) for answer in answers]
    if lengths != [NEW_TOKENS] * len(prompts):
        raise Failed(f"{lengths} tokens without a stop id, not {NEW_TOKENS} each")
    # Alone both times: in half precision a tie may fall otherwise in a batch.
    alone = subject.worker.generate([prompts[0]], NEW_TOKENS, [])[0]
    stop = alone[NEW_TOKENS // 2]
    cut = subject.worker.generate([prompts[0]], NEW_TOKENS, [stop])[0]
    expected = alone[: alone.index(stop)]
    if cut != expected:
        raise Failed(f"with a stop id it gave {len(cut)} tokens, not the {len(expected)} before it")
    return f"{NEW_TOKENS} tokens, {len(cut)} before a stop id"


def a_text_ends_generation(subject: Subject) -> str:
    """With a stop text, an answer ends with the token that completes the text's first occurrence."""
    subject.need("stop-texts")
    prompts, answers = _answers(subject)

    def text(ids: list[int]) -> str:
        return str(subject.tokenizer.decode(ids, skip_special_tokens=True))

    pairs = (text(answers[0][place : place + 2]) for place in range(2, NEW_TOKENS - 2))
    stops = [pair for pair in pairs if pair and "\ufffd" not in pair and pair in text(answers[0])]
    if not stops:
        raise NotOffered("the model's random answer holds no text of two tokens to end it with")
    for answer, cut in zip(answers, subject.worker.generate(prompts, NEW_TOKENS, [], stops[:1]), strict=True):
        ends = (count for count in range(1, NEW_TOKENS + 1) if stops[0] in text(answer[:count]))
        expected = answer[: next(ends, NEW_TOKENS)]
        if cut != expected:
            raise Failed(f"with a stop text it gave {len(cut)} tokens, not the {len(expected)} up to it")
    return f"ended by a text of {len(stops[0])} characters"


def every_step_is_timed(subject: Subject) -> str:
    """time gives the seconds to the first token and a gap before each later one, whatever the batch."""
    subject.need("time")
    prompt = subject.passage[:8]
    said = []
    for batch in (1, 2):
        try:
            timing = subject.worker.time([prompt] * batch, 6)  # the client refuses any other number of gaps
        except NotApplicable as error:
            if batch == 1:
                raise
            said.append(f"a batch of {batch} is not applicable: {error}")
            continue
        if not timing.ttft_s > 0 or not math.isfinite(timing.ttft_s) or min(timing.gaps_s) < 0:
            raise Failed(f"{timing.ttft_s} s to the first token, shortest gap {min(timing.gaps_s)} s, batch {batch}")
        said.append(f"{len(timing.gaps_s)} gaps for 6 tokens, batch {batch}")
    return "; ".join(said)


def _behind_the_top(subject: Subject, ids: list[int], start: int) -> float:
    """How far a token is behind the top of its row; infinitely, where it is not in the row."""
    k = min(5, int(subject.worker.description["topk"]))
    found = list(subject.worker.topk_logprobs(ids, start, k))
    tops, logprobs = np.concatenate([t.ids for t in found]), np.concatenate([t.logprobs for t in found])
    own = np.where(tops == np.asarray(ids[start:])[:, None], logprobs, -np.inf).max(axis=1)
    return float((logprobs.max(axis=1) - own).max())


def _answers(subject: Subject) -> tuple[list[list[int]], list[list[int]]]:
    subject.need("generate")
    prompts = [subject.passage[:6], subject.passage[:11], subject.passage[20:29]]
    return prompts, subject.worker.generate(prompts, NEW_TOKENS, [])
