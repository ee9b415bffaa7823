"""Where the content folders (`kernels/`, `suites/`, `reports/`) lie: inside the wheel, or beside the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def content(folder: str) -> Path:
    """The path of one content folder; raises FileNotFoundError naming both places when the install is incomplete."""
    installed = _PACKAGE / "_content" / folder
    checkout = _PACKAGE.parent / folder
    for place in (installed, checkout):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"content folder {folder!r} is neither at {installed} nor at {checkout}")
