"""llama.cpp on a GGUF file, in process: full-vocabulary log-probabilities of whole prompts and token by token.

The key-value cache is float16 by default, as llama.cpp's own is: what is judged is what will be deployed, and its
rounding is part of the engine's parity floor, which is measured before anything is compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import numpy as np

from awqbench.backends.base import BackendBase, FloatArray, Path, Scored, Timing
from awqbench.backends.llamacpp.library import open_library
from awqbench.backends.llamacpp.log import Log
from awqbench.backends.llamacpp.logits import log_softmax, score_rows
from awqbench.backends.llamacpp.model import MAX_SEQUENCES, Context, Model, Shape
from awqbench.backends.llamacpp.options import Options, describe
from awqbench.backends.stops import Stops
from awqbench.errors import BackendUnavailable, NotApplicable, UserError

# Log-probabilities handed on at once: 2**24 numbers are 64 MiB.
CHUNK_NUMBERS = 1 << 24
# Positions of the caches of all sequences that are generated side by side.
GENERATION_CELLS = 16384
_PAGE = 256  # llama.cpp rounds a context up to this many tokens

Input = tuple[tuple[int, ...], int]  # token ids, and the first position whose logits are wanted


class LlamaCppBackend(BackendBase):
    """Scores, generates and times with llama.cpp through its C interface."""

    model: Model
    options: Options
    _context: Context | None = None

    def load(self, options: dict[str, Any]) -> dict[str, Any]:
        """See `Backend.load`. Loads `weights`, a GGUF file, and runs one token, so that all of it is in memory.

        Raises UserError for a file or setting that llama.cpp does not take, BackendUnavailable without llama.cpp.
        """
        library = open_library((options.get("settings") or {}).get("provider"))
        log = Log()
        log.attach(library.functions)
        started = time.perf_counter()
        chosen = Options.read(options, library)
        self.model = Model(
            library, log, File(options["weights"]), gpu_layers=chosen.gpu_layers, main_gpu=chosen.main_gpu,
            mmap=chosen.mmap,
        )  # fmt: skip
        self.options = chosen.fitted(self.model)
        if not self.model.is_decoder_only:
            raise UserError(f"{self.model.path} is no decoder-only language model")
        (row,) = (rows for _, _, rows in self._feed(self._scoring(1), [((0,), 0)]))
        if row.shape != (1, self.model.vocab_size) or not np.isfinite(row).all():
            raise BackendUnavailable(f"llama.cpp's first logits of {self.model.path} are not finite numbers")
        return {**describe(self.model, self.options), "load_s": time.perf_counter() - started}

    def score(self, sequences: list[list[int]], starts: list[int]) -> Iterator[Scored]:
        """See `Backend.score`.

        A sequence's last token is never an input, so sequences that differ only there share a pass. Whole sequences
        are packed into passes of `batch_tokens`, without padding; longer ones are cut, with the cache between the cuts.
        """
        sharing: dict[tuple[int, ...], list[int]] = {}
        for index, sequence in enumerate(sequences):
            sharing.setdefault(tuple(sequence[:-1]), []).append(index)
        context = self._scoring(max(map(len, sharing), default=0))
        order = sorted(sharing, key=lambda ids: (-len(ids), sharing[ids][0]))
        parts: list[list[Scored]] = [[] for _ in sequences]
        finished = [False] * len(sequences)
        due = 0
        for batch in self._packed(order):
            inputs = [(ids, min(starts[index] for index in sharing[ids]) - 1) for ids in batch]
            for which, position, rows in self._feed(context, inputs):
                for index in sharing[batch[which]]:
                    low = max(position, starts[index] - 1)
                    targets = np.array(sequences[index][low + 1 : position + 1 + len(rows)], np.int32)
                    if len(targets):
                        parts[index].append(score_rows(rows[low - position :], targets))
            for ids in batch:
                for index in sharing[ids]:
                    finished[index] = True
            # Results leave in the caller's order, each as soon as all before it are there.
            while due < len(sequences) and finished[due]:
                yield _joined(parts[due])
                parts[due] = []
                due += 1

    def logprobs(self, ids: list[int], start: int, path: Path) -> Iterator[FloatArray]:
        """See `Backend.logprobs`."""
        step = max(1, CHUNK_NUMBERS // self.model.vocab_size)
        if path == "prefill":
            for _, _, rows in self._feed(self._scoring(len(ids) - 1), [(tuple(ids[:-1]), start - 1)]):
                for low in range(0, len(rows), step):
                    yield log_softmax(rows[low : low + step])
            return
        context = self._alone(1, len(ids))
        pending = [rows.copy() for _, _, rows in self._feed(context, [(tuple(ids[:start]), start - 1)])]
        for position in range(start, len(ids) - 1):
            if len(pending) == min(step, 128):
                yield log_softmax(np.concatenate(pending))
                pending = []
            pending.append(context.decode([ids[position]], [position], [0], [True]).copy())
        yield log_softmax(np.concatenate(pending))

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """See `Backend.generate`."""
        return self.generate_until(prompts, max_new_tokens, stop_ids, [])

    def generate_until(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int], stop_texts: list[str]
    ) -> list[list[int]]:
        """See `Backend.generate_until`. Up to `batch_size` prompts side by side, each with a cache of its own."""
        stops, answers = Stops(stop_ids, stop_texts, self.model.text), [list[int]() for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        while order and max_new_tokens > 0:
            length = len(prompts[order[-1]]) + max_new_tokens
            group = order[-max(1, min(self.options.batch_size, GENERATION_CELLS // length)) :]
            del order[-len(group) :]
            context = self._alone(len(group), length)
            tokens = self._first_tokens(context, [prompts[index] for index in group])
            slots = list(range(len(group)))
            while True:
                slots = [slot for slot in slots if not stops.at(tokens[slot])]
                for slot in slots:
                    answers[group[slot]].append(tokens[slot])
                grown = ((slot, answers[group[slot]]) for slot in slots)
                slots = [slot for slot, answer in grown if len(answer) < max_new_tokens and not stops.after(answer)]
                if not slots:
                    break
                ends = [len(prompts[group[slot]]) + len(answers[group[slot]]) - 1 for slot in slots]
                rows = context.decode([tokens[slot] for slot in slots], ends, slots, [True] * len(slots))
                for slot, token in zip(slots, rows.argmax(axis=1), strict=True):
                    tokens[slot] = int(token)
        return answers

    def time(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """See `Backend.time`. All prompts are parallel sequences; a step ends when its tokens are known, as a server
        would send them. Making the cache is not timed: a server has it from the start."""
        count, length = len(prompts), len(prompts[0])
        if count > MAX_SEQUENCES:
            raise NotApplicable(f"llama.cpp runs at most {MAX_SEQUENCES} sequences at once, asked for {count}")
        context = self._alone(count, length + new_tokens)
        stamps = [time.perf_counter()]
        tokens = self._first_tokens(context, prompts)
        stamps.append(time.perf_counter())
        slots, wanted = list(range(count)), [True] * count
        for position in range(length, length + new_tokens - 1):
            tokens = context.decode(tokens, [position] * count, slots, wanted).argmax(axis=1).tolist()
            stamps.append(time.perf_counter())
        gaps = np.diff(stamps)
        return Timing(float(gaps[0]), [float(gap) for gap in gaps[1:]])

    def tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        """Token ids with the file's own tokenizer; `special`: with what it adds by itself."""
        if not self.model.has_tokenizer:
            raise NotApplicable(f"{self.model.path} holds no tokenizer")
        return [self.model.tokenize(text, special) for text in texts]

    def unload(self) -> None:
        """Free the cache and the weights."""
        if self._context is not None:
            self._context.close()
            self._context = None
        if hasattr(self, "model"):
            self.model.close()

    def _scoring(self, length: int) -> Context:
        """A context for passes over whole sequences: one cache, which a pass fills anew."""
        self._check(length)
        return self._fresh(Shape(self.options.batch_size, max(length, self.options.batch_tokens), unified=True))

    def _alone(self, sequences: int, length: int) -> Context:
        """A context for generation: a cache for each sequence."""
        self._check(length)
        return self._fresh(Shape(sequences, length, unified=False))

    def _fresh(self, shape: Shape) -> Context:
        """An empty context; the one there is, where it does."""
        shape = Shape(shape.sequences, -(-shape.length // _PAGE) * _PAGE, shape.unified)
        if self._context is None or not self._context.shape.serves(shape):
            if self._context is not None:
                self._context.close()
                self._context = None
            self._context = Context(self.model, shape, self.options.context)
        self._context.clear()
        return self._context

    def _check(self, length: int) -> None:
        """Raises UserError for more positions than there are."""
        if length > self.options.max_positions:
            raise UserError(
                f"a sequence of {length} tokens does not fit: {self.model.path.name} is run with at most "
                f"{self.options.max_positions} (the model's own, or the option context)"
            )

    def _packed(self, order: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Inputs in batches of at most `batch_size` inputs and `batch_tokens` tokens; a longer one goes alone."""
        batch: list[tuple[int, ...]] = []
        tokens = 0
        for ids in order:
            if batch and (len(batch) == self.options.batch_size or tokens + len(ids) > self.options.batch_tokens):
                yield batch
                batch, tokens = [], 0
            batch.append(ids)
            tokens += len(ids)
        if batch:
            yield batch

    def _feed(self, context: Context, inputs: list[Input]) -> Iterator[tuple[int, int, FloatArray]]:
        """Run inputs as sequences 0, 1, ... of an emptied context, `batch_tokens` tokens at a time.

        Yields (input, position, logits) with logits float32 [rows, vocabulary] for `position` and those after it, valid
        until the next step; positions before an input's first wanted one give none.
        """
        context.clear()
        places = [(which, position) for which, (ids, _) in enumerate(inputs) for position in range(len(ids))]
        for low in range(0, len(places), context.batch_tokens):
            part = places[low : low + context.batch_tokens]
            wanted = [position >= inputs[which][1] for which, position in part]
            logits = context.decode(
                [inputs[which][0][position] for which, position in part],
                [position for _, position in part], [which for which, _ in part], wanted,
            )  # fmt: skip
            row = 0
            kept = [place for place, want in zip(part, wanted, strict=True) if want]
            while row < len(kept):
                which, position = kept[row]
                end = row
                while end < len(kept) and kept[end][0] == which:
                    end += 1
                yield which, position, logits[row:end]
                row = end

    def _first_tokens(self, context: Context, prompts: list[list[int]]) -> list[int]:
        """The most likely token after each prompt."""
        tokens = [0] * len(prompts)
        for which, _, rows in self._feed(context, [(tuple(prompt), len(prompt) - 1) for prompt in prompts]):
            tokens[which] = int(rows[0].argmax())
        return tokens


def _joined(parts: list[Scored]) -> Scored:
    if len(parts) == 1:
        return parts[0]
    empty = Scored(np.empty(0, np.float32), np.empty(0, np.int32))
    return Scored(
        np.concatenate([part.logprobs for part in parts or [empty]]),
        np.concatenate([part.argmax for part in parts or [empty]]),
    )
