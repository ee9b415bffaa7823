"""Parity: does an engine, given the reference's own unquantized weights, say what the reference says?

What differs here is the engine's arithmetic, tokenizer or conversion of the weights, and must not be blamed on
quantization. The strongest comparison that the engine allows is made: whole distributions, its top k, or the
log-probabilities of the text's own tokens.
"""

from __future__ import annotations

import numpy as np

from awqbench.record.schema import Metric
from awqbench.sources.texts import resolve_text
from awqbench.spec import ParitySpec
from awqbench.suites import divergence
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.likelihood import encode

# What tokenizers part ways over: spaces, line ends, digits, contractions, scripts, composed characters, code.
HARD_TEXTS = (
    "a",
    " leading space",
    "trailing space ",
    "two  spaces\tand a tab",
    "line\n\nbreaks\r\n",
    "1234567890 3.14 1e-5",
    "don't can't we'll",
    "naïve café, Zürich",
    "e\u0301 composed",
    "日本語とことば",
    "Привет, мир",
    "مرحبا",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f389",
    "def f(x):\n    return x  # 4 spaces",
    "<html><b>&amp;</b>",
    "https://example.org/?q=1&r=2",
    "CamelCaseWORD_snake",
)
_PARAGRAPHS = 40


def measure(context: Context) -> Measurement:
    """Metrics `parity/...`: divergences as the divergence suite has them, and how texts are split into tokens.

    Raises NotApplicable for an engine that gives no log-probabilities of a text.
    """
    if context.worker.offers("logprobs") or context.worker.offers("topk-logprobs"):
        measured = divergence.measure(context)
    else:
        context.require("score")
        measured = _scored(context)
    if context.worker.offers("tokenize"):
        measured.metrics += _tokenization(context)
    else:
        measured.notes.append("the engine's own tokenizer cannot be asked: token ids, not text, cross to it")
    return measured


def _scored(context: Context) -> Measurement:
    """Mean absolute error of the log-probabilities of the text's own tokens, and top-1 disagreement."""
    assert context.scratch is not None
    wanted = [stretch for stretch in divergence.stretches(context) if stretch.route == "prefill"]
    scored = context.worker.score([s.ids for s in wanted], [1] * len(wanted), context.progress)
    rows, errors, differs = [], [], []
    for stretch, found in zip(wanted, scored, strict=True):
        stored = np.memmap(context.scratch / stretch.file, np.float32, "r").reshape(len(stretch.ids) - 1, -1)
        own = np.take_along_axis(stored, np.asarray(stretch.ids[1:])[:, None], axis=1)[:, 0]
        errors.append(np.abs(own.astype(np.float64) - found.logprobs))
        differs.append((stored.argmax(axis=1) != found.argmax).astype(np.float64))
        rows += [
            {"metric": f"{stretch.protocol}/prefill/{what}", "item_id": f"prefill-{stretch.index:05d}",
             "cluster": stretch.cluster, "score": float(values.mean()), "tokens": len(values)}
            for what, values in (("logprob-error", errors[-1]), ("top1-disagreement", differs[-1]))
        ]  # fmt: skip
    prefix = f"{wanted[0].protocol}/prefill"
    how = "the text's own tokens on whole windows"
    return Measurement(
        [
            _single(f"{prefix}/logprob-error", np.concatenate(errors), "nats", f"mean absolute error, {how}"),
            _single(f"{prefix}/top1-disagreement", np.concatenate(differs), "share of positions", how),
        ],
        item_table(rows),
    )


def _tokenization(context: Context) -> list[Metric]:
    """Whether the engine would have split texts as the reference's tokenizer does, and begun them alike."""
    spec: ParitySpec = context.suite
    paragraphs = [part for part in resolve_text(spec.text).content.split("\n\n") if part.strip()]
    texts = [*HARD_TEXTS, *paragraphs[:: max(1, len(paragraphs) // _PARAGRAPHS)][:_PARAGRAPHS]]
    theirs = context.worker.tokenize(texts, special=False)
    same = [ids == encode(context.tokenizer, text, False) for ids, text in zip(theirs, texts, strict=True)]
    split = [text for text, equal in zip(texts, same, strict=True) if not equal]
    tokens = _single("parity/same-tokens", np.array(same, float), "share of texts", "split into the same token ids")
    tokens = tokens.model_copy(update={"higher_is_better": True, "detail": {"different": [t[:80] for t in split[:5]]}})
    ours, its = encode(context.tokenizer, "a"), context.worker.tokenize(["a"], special=True)[0]
    begin = _single(
        "parity/same-bos", np.array([float(ours[:1] == its[:1])]), "share", "what each tokenizer puts before a text"
    )
    begin = begin.model_copy(update={"higher_is_better": True, "detail": {"reference": ours, "engine": its}})
    return [tokens, begin]


def _single(identity: str, values: np.ndarray, unit: str, protocol: str) -> Metric:
    return Metric(
        id=identity, value=float(values.mean()), unit=unit, n=len(values), protocol=protocol, higher_is_better=False,
        pairing="to-reference", detail={"positions": len(values)},
    )  # fmt: skip
