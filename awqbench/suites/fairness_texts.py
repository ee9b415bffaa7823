"""How likely are texts about a group? Per token, and per byte, which does not depend on how a tokenizer cuts them.

With the summed negative log-likelihood L_i of text i in nats, its t_i tokens and b_i bytes of UTF-8:

    perplexity      exp(mean of L_i / t_i)
    nats-per-byte   mean of L_i / b_i

Means over texts, so that each text counts alike. A name that is cut into many tokens makes the nats per token of its
text small and leaves its nats per byte: between groups compare per byte. Between two models with the same tokenizer,
on the same texts, both tell the change of the same log-likelihoods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from awqbench.record.schema import Metric
from awqbench.suites.fairness_groups import group_measures
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, Row
from awqbench.suites.means import mean_metric

if TYPE_CHECKING:
    from awqbench.backends.base import Scored


def text_measures(
    fairness_set: FairnessSet,
    items: Sequence[FairnessItem],
    identities: Sequence[Row],
    scored: Sequence[Scored],
    min_group: int,
) -> tuple[list[Metric], list[Row]]:
    """Perplexity and nats per byte, overall and by group, and a row per text for each."""
    per_token, per_byte = (f"fairness/{fairness_set.name}/{name}" for name in ("perplexity", "nats-per-byte"))
    token_rows: list[Row] = []
    byte_rows: list[Row] = []
    for item, identity, text in zip(items, identities, scored, strict=True):
        count = len(text.logprobs)
        shared = {**identity, "nll": text.nll, "tokens": count}
        token_rows.append({"metric": per_token, **shared, "score": text.nll / count})
        byte_rows.append({"metric": per_byte, **shared, "score": text.nll / len(item.choices[0].encode())})
    protocol, notes = fairness_set.protocol, dict(fairness_set.notes)
    detail, by_group = group_measures(
        fairness_set.name, "nats-per-byte", byte_rows, protocol, min_group, unit="nats per byte", worst_is_largest=True
    )
    metrics = [
        mean_metric(
            per_token, [row["score"] for row in token_rows], [row["cluster"] for row in token_rows],
            unit="perplexity", pairing="log-ratio", protocol=f"{protocol}, of nats per token; exp of it",
            detail=notes, higher_is_better=False,
        ),
        mean_metric(
            per_byte, [row["score"] for row in byte_rows], [row["cluster"] for row in byte_rows],
            unit="nats per byte", protocol=f"{protocol}, of nats per byte of UTF-8",
            detail={"groups": detail, **notes}, higher_is_better=False,
        ),
    ]  # fmt: skip
    return [*metrics, *by_group], [*token_rows, *byte_rows]
