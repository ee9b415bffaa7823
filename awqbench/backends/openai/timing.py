"""When each token of a batch of streams was there."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from awqbench.backends.base import Timing
from awqbench.backends.openai.http import Client
from awqbench.errors import InvalidMeasurement

# Above this share, tokens that came together would shape the gaps.
MOST_TOGETHER = 0.1

# (when an event was there, how many tokens it brought), as they come; starts the request when it is first asked.
Stream = Iterator[tuple[float, int]]


def time_batch(
    client: Client, prompts: Sequence[list[int]], new_tokens: int, stream: Callable[[list[int], int], Stream]
) -> Timing:
    """Stream all prompts at once, each on a connection that is open before the clock starts.

    Step i is over when every stream has its token i, which is how a batch inside one process is timed too. Raises
    InvalidMeasurement where a stream brings fewer tokens, or so many at once that their gaps cannot be told.
    """
    together = threading.Barrier(len(prompts))

    def one(prompt: list[int]) -> tuple[float, list[float]]:
        try:
            client.close()  # a connection that the server is about to drop must not be the one that is timed
            client.connect()
        finally:
            together.wait()
        try:
            begun = time.perf_counter()
            return begun, token_times(list(stream(prompt, new_tokens)), new_tokens)
        finally:
            client.close()

    with ThreadPoolExecutor(len(prompts)) as pool:
        found = list(pool.map(one, prompts))
    begun = min(start for start, _ in found)
    steps = [max(column) for column in zip(*(times for _, times in found), strict=True)]
    return Timing(steps[0] - begun, [after - before for before, after in pairwise(steps)])


def token_times(events: Sequence[tuple[float, int]], wanted: int) -> list[float]:
    """The time of each of `wanted` tokens, from events that brought some tokens each.

    An event that brings several tokens is never counted as one: they share the time since the event before. Raises
    InvalidMeasurement where the first event does so, where many do, or where the number of tokens is another.
    """
    events = [(stamp, count) for stamp, count in events if count]
    brought = sum(count for _, count in events)
    if brought != wanted:
        raise InvalidMeasurement(
            f"the server streamed {brought} tokens where {wanted} were asked for "
            "(does it end at its end-of-sequence token in spite of ignore_eos, or at its context's end?)"
        )
    together = sum(count for _, count in events if count > 1)
    if events[0][1] > 1 or together > MOST_TOGETHER * wanted:
        raise InvalidMeasurement(
            f"{together} of {wanted} tokens came in {sum(c > 1 for _, c in events)} events of several tokens each: "
            "the gaps between tokens cannot be seen (speculative decoding, or a stream interval above 1?)"
        )
    if together:
        print(f"{together} of {wanted} tokens came together with others; they share their gaps", file=sys.stderr)
    times: list[float] = []
    before = events[0][0]
    for stamp, count in events:
        times += [stamp - (stamp - before) * (count - 1 - i) / count for i in range(count)]
        before = stamp
    return times
