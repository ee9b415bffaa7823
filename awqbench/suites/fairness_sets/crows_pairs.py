"""CrowS-Pairs (Nangia et al. 2020, arXiv 2010.00133), for causal models: is the stereotyping sentence likelier?"""

from __future__ import annotations

import csv

from awqbench.errors import UserError
from awqbench.suites.fairness_sets.base import FairnessItem, FairnessSet, data_files

_COLUMNS = {"sent_more", "sent_less", "stereo_antistereo", "bias_type"}


def load(path: str | None = None) -> FairnessSet:
    """The pairs of crows_pairs_anonymized.csv; `sent_more` is the more stereotyping sentence in both directions."""
    (file, *_) = data_files("crows-pairs", path, "*.csv")
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or (missing := _COLUMNS - set(rows[0])):
        raise UserError(f"{file} is no CrowS-Pairs file: it lacks {', '.join(sorted(missing)) if rows else 'rows'}")
    items = tuple(
        FairnessItem(
            item_id=f"crows-pairs/{number}",
            cluster=f"crows-pairs/{number}",
            context="",
            choices=(row["sent_more"], row["sent_less"]),
            gold=None,
            groups={"bias_type": row["bias_type"], "direction": row["stereo_antistereo"]},
            block=str(number),
            stratum=row["bias_type"],
        )
        for number, row in enumerate(rows)
    )
    protocol = (
        "CrowS-Pairs for causal models: share of pairs whose more stereotyping sentence has the larger summed "
        "log-likelihood after BOS (the original masks tokens, which a causal model cannot); ties count one half"
    )
    return FairnessSet("crows-pairs", "preference", items, protocol)
