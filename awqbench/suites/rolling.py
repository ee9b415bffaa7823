"""Rolling perplexity of whole documents, per word and per byte, as lm-eval defines it.

Every token of a document is predicted exactly once, in disjoint windows: the first follows the prefix token (BOS, else
EOS), each other one the last token of the window before it. A figure per word or byte can be compared between
tokenizers, which one per token cannot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awqbench.record.schema import Metric, Pairing
from awqbench.sources.texts import resolve_text
from awqbench.spec import PerplexitySpec
from awqbench.stats.inputs import Floats
from awqbench.stats.ratio import linearized
from awqbench.suites.base import Context, Measurement, budget_suffix, item_table
from awqbench.suites.documents import plain_documents, tokenizer_hash
from awqbench.suites.likelihood import encode, prefix_id, score_pairs
from awqbench.suites.means import cluster_interval
from awqbench.suites.windows import check_window


@dataclass(frozen=True, slots=True)
class Document:
    """A text to predict, and the words and UTF-8 bytes that its loss is divided by."""

    text: str
    words: int
    bytes: int


def document(text: str, counted: str | None = None) -> Document:
    """A document whose words and bytes are those of `counted` where that is given: the text before detokenization.

    Words are what white space divides, as lm-eval counts them: white space at an end leaves an empty word there.
    """
    original = text if counted is None else counted
    return Document(text, len(re.split(r"\s+", original)), len(original.encode()))


def rolling_pairs(ids: Sequence[int], prefix: int, window: int) -> list[tuple[list[int], list[int]]]:
    """A text's tokens as context and continuation ids of disjoint windows, `window` tokens each at most."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    # lm-eval counts a window's inputs; the last of its predictions is no input but is sent along.
    return [make_disjoint_window(inputs) for inputs in get_rolling_token_windows(ids, prefix, window - 1, 1)]


def measure(context: Context) -> Measurement:
    """`perplexity/<text>/<rolling or wikitext>@<window>/<what>`: word_perplexity, byte_perplexity and bits_per_byte.

    exp(sum of NLL / sum of words or bytes), over all documents. A row per document, whose score is its own NLL per word
    (byte) and whose weight is its number of words (bytes): rows pair to the ratio of two models' figures. Documents are
    the clusters. A figure that is beyond all numbers is left out and noted: scripts without spaces have few words.
    """
    context.require("score")
    spec: PerplexitySpec = context.suite
    check_window(context, spec.window)
    label, documents, more = _documents(spec)
    budget = budget_suffix(spec.documents, len(documents), context.draw)
    places = context.chosen(len(documents), spec.documents)
    documents = [documents[i] for i in places]
    losses, tokens, windows = _score(context, spec.window, documents)
    path = "wikitext" if spec.protocol == "wikitext" else "rolling"
    prefix = f"perplexity/{label}/{path}@{spec.window}{budget}"
    names = [f"document-{i:05d}" for i in places]
    detail = {
        "documents": len(documents), "windows": windows, "tokens_predicted": sum(tokens),
        "words": sum(d.words for d in documents), "bytes": sum(d.bytes for d in documents),
        "tokenizer": tokenizer_hash(context.tokenizer),
    }  # fmt: skip
    metrics, rows = [], []
    notes = [] if budget else more  # a budget is of the first documents, whatever comes after what was read
    for what, unit in (("word_perplexity", "words"), ("byte_perplexity", "bytes"), ("bits_per_byte", "bytes")):
        logarithm = math.log(2) if what == "bits_per_byte" else 1.0
        weights = np.array([getattr(d, unit) for d in documents], np.float64)
        metric = _metric(f"{prefix}/{what}", losses / logarithm, weights, names, spec, detail)
        if metric is None:
            nats = losses.sum() / weights.sum()
            notes = [*notes, f"no {what}: {nats:.4g} nats for each of {weights.sum():.0f} {unit} have no exponential"]
            continue
        metrics.append(metric)
        rows += [
            {
                "metric": f"{prefix}/{what}", "item_id": name, "cluster": name, "nll": nll, "tokens": count,
                "score": nll / weight / logarithm, "weight": weight,
            }
            for name, nll, count, weight in zip(names, losses.tolist(), tokens, weights.tolist(), strict=True)
        ]  # fmt: skip
    return Measurement(metrics, item_table(rows), notes=notes)


def _documents(spec: PerplexitySpec) -> tuple[str, list[Document], list[str]]:
    if spec.protocol != "wikitext":
        label, texts, more = plain_documents(spec.text, spec.text_field)
        return label, [document(text) for text in texts], more
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    from awqbench.sources.wikitext import wikitext_articles

    pages = wikitext_articles(spec.text)
    return resolve_text(spec.text).label, [document(wikitext_detokenizer({"page": page}), page) for page in pages], []


def _score(context: Context, window: int, documents: list[Document]) -> tuple[Floats, list[int], int]:
    """Each document's NLL in nats and its tokens, and how many windows there were."""
    prefix = prefix_id(context.tokenizer)
    pairs, owners = [], []
    for owner, item in enumerate(documents):
        own = rolling_pairs(encode(context.tokenizer, item.text), prefix, window)
        pairs += own
        owners += [owner] * len(own)
    scored = score_pairs(context.worker, pairs, window, context.progress)
    losses, tokens = np.zeros(len(documents)), [0] * len(documents)
    for owner, result in zip(owners, scored, strict=True):
        losses[owner] += result.nll
        tokens[owner] += len(result.logprobs)
    return losses, tokens, len(pairs)


def _metric(
    id: str, losses: Floats, weights: Floats, names: list[str], spec: PerplexitySpec, detail: dict[str, object]
) -> Metric | None:
    """Sum of losses over sum of weights; its interval is that of a ratio, linearized, over documents.

    None for a perplexity beyond all numbers.
    """
    ratio = float(losses.sum() / weights.sum())
    low, high = cluster_interval(linearized(losses / weights, weights), names)
    bits = id.endswith("bits_per_byte")
    pairing: Pairing = "difference" if bits else "log-ratio"
    mean = float((losses / weights).mean())
    value, low, high, mean_shown = [x if x is None or bits else _exp(x) for x in (ratio, low, high, mean)]
    if value is None:
        return None
    if high is None:
        low = None
    counted = " before detokenization (lm-eval's wikitext task)" if spec.protocol == "wikitext" else ""
    return Metric(
        id=id, value=value, unit="bits per byte" if bits else "perplexity", n=len(losses), ci_low=low,
        ci_high=high, higher_is_better=False, pairing=pairing,
        protocol=f"{len(losses)} documents, every token predicted once in disjoint windows of at most {spec.window} "
        f"tokens, the prefix among them (lm-eval's rolling likelihood, max_length {spec.window - 1}); total NLL over "
        f"total {'words' if 'word' in id else 'bytes'}{counted}",
        detail={**detail, "mean_over_documents": mean_shown},
    )  # fmt: skip


def _exp(nats: float) -> float | None:
    """None where a float64 cannot hold it."""
    try:
        return math.exp(nats)
    except OverflowError:
        return None
