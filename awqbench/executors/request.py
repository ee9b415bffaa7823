"""What the quantizer's process is asked for: settings as plain data, and the calibration documents as a file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from awqbench.errors import UserError
from awqbench.formats.layouts import layout
from awqbench.formats.scheme import Scheme
from awqbench.quantization.mixed import Mixing
from awqbench.sources.calibration import write_documents
from awqbench.sources.documents import resolve_documents
from awqbench.spec import QuantizeSpec

_RECIPE = ("bits", "group_size", "symmetric", "clip", "search", "damping", "grouped_queries")
_CALIBRATION = ("protocol", "samples", "seq_len", "chat_template")
_OTHERS = ("max_memory", "workers", "indivisible", "dtype", "allow_pickle")


def check_settings(settings: QuantizeSpec) -> None:
    """Raise UserError for what can be refused without a model: a format that cannot hold the codes, a missing file."""
    scheme = Scheme(settings.bits, settings.group_size, settings.symmetric)
    mixing = _mixing(settings)
    mixing.check(scheme)
    widths = [settings.bits, settings.keep_bits] if mixing.wanted and settings.keep_bits < 16 else [settings.bits]
    for bits in widths:
        layout(settings.format).refuse(replace(scheme, bits=bits))
    if settings.overrides and not Path(settings.overrides).is_file():
        raise UserError(f"no overrides file at {settings.overrides}")


def request(settings: QuantizeSpec, model_dir: Path, out: Path, scratch: Path, seed: int) -> dict[str, Any]:
    """The request for one checkpoint; the documents are written into `scratch`, where the process reads them.

    Raises UserError as `check_settings` and `resolve_documents` do.
    """
    check_settings(settings)
    found = resolve_documents(settings.calibration, settings.text_field)
    documents = scratch / "documents.jsonl"
    write_documents(found.items, documents)
    values = settings.model_dump()
    # The label, not the path: a published checkpoint must not tell its maker's folders.
    source = {"name": found.label, "source_sha256": found.sha256}
    return {
        "model_dir": str(model_dir),
        "out": str(out),
        "recipe": {"method": settings.method or "awq", "seed": seed, **{key: values[key] for key in _RECIPE}},
        "documents": str(documents),
        "calibration": {**source, **{key: values[key] for key in _CALIBRATION}},
        "layout": settings.format,
        "mixing": asdict(_mixing(settings)),
        "overrides": settings.overrides,
        **{key: values[key] for key in _OTHERS},
    }


def _mixing(settings: QuantizeSpec) -> Mixing:
    return Mixing(settings.keep_worst, settings.bits_budget, settings.keep_bits, settings.keep)
