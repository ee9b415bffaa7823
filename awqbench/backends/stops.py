"""Where an answer ends before the token limit: at a stop id, or once its text holds a stop text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


class Stops:
    """Tells whether a growing answer is at its end.

    `decode` makes text of token ids. A text may be spread over tokens in any way, so the text is what is searched: the
    last few tokens after each step, and the whole answer before it is called ended.
    """

    def __init__(
        self, ids: Collection[int], texts: Collection[str] = (), decode: Callable[[Sequence[int]], str] | None = None
    ) -> None:
        if texts and decode is None:
            raise ValueError("stop texts need a way to make text of token ids")
        self.ids, self.texts, self._decode = frozenset(ids), tuple(filter(None, texts)), decode
        # A token adds a byte at least; one more, for a tokenizer may drop a leading space of what it decodes.
        self._tail = 1 + max((len(text.encode()) for text in self.texts), default=0)

    def at(self, token: int) -> bool:
        """Whether this token ends an answer, of which it is no part."""
        return token in self.ids

    def after(self, answer: Sequence[int]) -> bool:
        """Whether an answer holds a stop text, which its last token completed."""
        return self._holds(answer[-self._tail :]) and self._holds(answer)

    def _holds(self, ids: Sequence[int]) -> bool:
        if not self.texts or self._decode is None:
            return False
        text = self._decode(ids)
        return any(stop in text for stop in self.texts)
