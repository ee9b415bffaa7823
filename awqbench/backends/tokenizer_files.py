"""Checkpoints without a tokenizer, for engines that load one before all else. Standard library only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of these files a folder with a tokenizer has one.
_FILES = ("tokenizer.*", "tokenizer_config.json", "vocab.*", "*.tiktoken", "spiece.model")
_BESIDE = ("merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*", "*.py")


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds a tokenizer; quantizers leave it out now and then."""
    return any(file for pattern in _FILES for file in Path(folder).glob(pattern))


@contextmanager
def with_tokenizer(folder: str, model_dir: str) -> Iterator[str]:
    """The folder, or where it has no tokenizer one of links to its files and to those of the model's tokenizer."""
    if has_tokenizer(folder) or not model_dir:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="awqbench-") as linked:
        found = [file for pattern in (*_FILES, *_BESIDE) for file in Path(model_dir).glob(pattern)]
        for file in [*Path(folder).iterdir(), *found]:
            if not (place := Path(linked) / file.name).exists():
                place.symlink_to(file.resolve())
        yield linked
