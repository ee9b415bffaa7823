"""What is timed, in order of importance: a session that is cut short has measured what matters most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awqbench.kernelbench.problem import Shape

DEFAULT_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
KEY_BATCHES = (1, 8, 16, 64, 512)
DEFAULT_SHAPES = "llama3-8b,llama3-70b,llama2-7b"


@dataclass(frozen=True)
class Unit:
    """One weight and dtype in one mode, for several batch sizes: what shares packed weights."""

    shape: Shape
    dtype: str
    mode: str
    batches: tuple[int, ...]


def plan(shapes: Sequence[Shape], batches: Sequence[int], dtypes: Sequence[str], modes: Sequence[str]) -> list[Unit]:
    """Every combination once: the key batch sizes of all shapes in the first dtype and mode; these in the other modes,
    then in the other dtypes; the rest of the batch sizes; at last the rest of everything."""
    key = tuple(m for m in batches if m in KEY_BATCHES) or tuple(batches)
    rest = tuple(m for m in batches if m not in key)
    first = (dtypes[0], modes[0])
    others = [(dtypes[0], mode) for mode in modes[1:]] + [(dtype, modes[0]) for dtype in dtypes[1:]]
    last = [(dtype, mode) for dtype in dtypes[1:] for mode in modes[1:]]
    steps = [
        (first, key),
        *((each, key) for each in others),
        (first, rest),
        *((each, rest) for each in others),
        *((each, (*key, *rest)) for each in last),
    ]
    return [Unit(shape, dtype, mode, rows) for (dtype, mode), rows in steps if rows for shape in dict.fromkeys(shapes)]
