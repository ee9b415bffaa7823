"""Checkpoints without a tokenizer, for engines that load one before all else. Standard library only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from awqbench.formats.companions import TOKENIZER, WITH_TOKENIZER


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds a tokenizer; quantizers leave it out now and then."""
    return any(file for pattern in TOKENIZER for file in Path(folder).glob(pattern))


@contextmanager
def with_tokenizer(folder: str, model_dir: str) -> Iterator[str]:
    """The folder, or where it has no tokenizer one of links to its files and to those of the model's tokenizer."""
    if has_tokenizer(folder) or not model_dir:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="awqbench-") as linked:
        lent = (file.relative_to(model_dir).parts[0] for each in WITH_TOKENIZER for file in Path(model_dir).glob(each))
        for file in [*Path(folder).iterdir(), *(Path(model_dir, name) for name in lent)]:
            if not (place := Path(linked) / file.name).exists():
                place.symlink_to(file.resolve())
        yield linked
