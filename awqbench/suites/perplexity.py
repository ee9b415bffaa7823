"""Token perplexity as GPTQ and AWQ measure it: non-overlapping windows of a text that was tokenized once.

exp of the unweighted mean over windows of the window's mean negative log-likelihood; the first token of a window is
context only, the tail of the text is dropped. llm-awq (entry.py), AutoAWQ (eval_utils.py). The c4 and ptb protocols
differ in how the text is made of documents (LightCompress); `rolling` has those of lm-eval.
"""

from __future__ import annotations

import numpy as np

from awqbench.sources.texts import resolve_text
from awqbench.spec import PerplexitySpec
from awqbench.suites import rolling
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.documents import plain_documents, tokenizer_hash
from awqbench.suites.means import mean_metric
from awqbench.suites.windows import Windows, neighbours, text_windows, windows_of

C4_DOCUMENTS, C4_WINDOWS = 1100, 256
_TEXTS = {
    "windows": "text tokenized once",
    "c4": f"the first {C4_DOCUMENTS} documents joined by a space, tokenized once, {C4_WINDOWS} windows at most",
    "ptb": "sentences joined by a space, tokenized once",
}


def measure(context: Context) -> Measurement:
    """One metric, `perplexity/<text>@<window>`, with `+N` for the first N windows only.

    c4 and ptb are named `perplexity/<text>/<protocol>@<window>`; documents and wikitext: see `rolling`. A row per
    window, whose score is its mean NLL in nats per token.
    """
    context.require("score")
    spec: PerplexitySpec = context.suite
    if spec.protocol not in _TEXTS:
        return rolling.measure(context)
    windows, notes = _windows(context, spec)
    scored = context.worker.score(windows.ids, [1] * len(windows.ids), context.progress)
    losses = [item.nll / len(item.logprobs) for item in scored]
    name = f"perplexity/{windows.protocol(spec.window, spec.windows)}"
    clusters = neighbours(windows.places, spec.window)
    rows = [
        {
            "metric": name, "item_id": f"window-{i:05d}", "cluster": cluster, "score": loss, "nll": s.nll,
            "tokens": len(s.logprobs),
        }
        for i, cluster, loss, s in zip(windows.places, clusters, losses, scored, strict=True)
    ]  # fmt: skip
    metric = mean_metric(
        name,
        losses,
        clusters,
        unit="perplexity",
        higher_is_better=False,
        pairing="log-ratio",
        protocol=f"{len(losses)} non-overlapping windows of {spec.window} tokens ({spec.window - 1} predicted each), "
        f"{_TEXTS[spec.protocol]}, tail dropped, float32 log-softmax, exp of the mean of window means (GPTQ/AWQ)",
        detail={
            "tokens_predicted": sum(len(s.logprobs) for s in scored),
            "mean_nll": float(np.mean(losses)),
            "windows_available": windows.available,
            "text_tokens": len(windows.text),
            "tokenizer": tokenizer_hash(context.tokenizer),
            "autocorrelation": autocorrelation(losses),
        },
    )
    return Measurement([metric], item_table(rows), notes=notes)


def _windows(context: Context, spec: PerplexitySpec) -> tuple[Windows, list[str]]:
    """The windows of a protocol, and what makes its figure another than the published ones."""
    if spec.protocol == "windows":
        windows = text_windows(context, spec.text, spec.window, spec.windows)
        marked = "<unk>" in resolve_text(spec.text).content
        return windows, [f"{spec.text} holds <unk>: published figures are of the raw text"] if marked else []
    label, texts, more = plain_documents(spec.text, spec.text_field)
    content = " ".join(texts[:C4_DOCUMENTS] if spec.protocol == "c4" else texts)
    most = C4_WINDOWS if spec.protocol == "c4" else None
    windows = windows_of(context, f"{label}/{spec.protocol}", content, spec.window, spec.windows, most)
    if most and windows.available < most:
        short = f"{len(texts[:C4_DOCUMENTS])} documents make {windows.available} windows of {spec.window} tokens"
        return windows, [f"{short}: published figures are of {C4_DOCUMENTS} documents and {most} windows"]
    return windows, [f"{note}: published figures are of all" for note in more if spec.protocol == "ptb"]


def autocorrelation(losses: list[float]) -> float | None:
    """Correlation of a window's loss with its successor's: near zero where windows are as good as independent.

    None for fewer than four windows, or where all are alike.
    """
    values = np.asarray(losses)
    if len(values) < 4 or np.ptp(values[:-1]) == 0 or np.ptp(values[1:]) == 0:
        return None
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])
