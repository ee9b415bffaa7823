"""Documents of the HellaSwag text file, six lines each: "activity: context", the right ending's index, four endings."""

from __future__ import annotations

import datasets


def process_docs(dataset: datasets.Dataset) -> datasets.Dataset:
    """Lines in a column `text` to documents with query, choices, gold and activity."""
    lines = dataset["text"][:]
    return datasets.Dataset.from_list(
        [
            {
                "query": lines[at],
                "gold": int(lines[at + 1]),
                "choices": lines[at + 2 : at + 6],
                "activity": lines[at].partition(": ")[0],
            }
            for at in range(0, len(lines), 6)
        ]
    )
