"""Full-vocabulary divergence from the reference, position by position, on the prefill and on the decode path.

Long windows never run the kernels that decode one token at a time, and those are where silent bugs were found: so the
decode path feeds single tokens through the KV cache. The reference's log-probabilities are written once, in float32,
and every candidate is held against the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from awqbench.backends.base import FloatArray
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Metric
from awqbench.spec import DivergenceSpec
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.windows import text_windows

Route = Literal["prefill", "decode"]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window on one of the two paths."""

    route: Route
    index: int
    ids: list[int]
    protocol: str  # text, window and budget, as they stand in metric ids

    @property
    def file(self) -> str:
        """Where the reference's log-probabilities of this stretch are kept."""
        return f"{self.route}-{self.index:05d}.f32"


def stretches(context: Context) -> list[Stretch]:
    """What is measured, prefill first."""
    spec: DivergenceSpec = context.suite
    windows = text_windows(context, spec.text, spec.window, spec.windows)
    name = windows.protocol(spec.window, spec.windows)
    found = [Stretch("prefill", i, ids, name) for i, ids in enumerate(windows.ids)]
    if spec.decode_windows:
        # The decode windows are the starts of the prefill windows: the same text on both paths.
        length = min(spec.decode_window, spec.window)
        name = windows.protocol(length, spec.decode_windows)
        starts = windows.ids[: context.budget(spec.decode_windows)]
        found += [Stretch("decode", i, ids[:length], name) for i, ids in enumerate(starts)]
    return found


def record_reference(context: Context, out: Path) -> None:
    """Write the reference's log-probabilities of every stretch to `out`: float32, rows x vocabulary, row-major."""
    wanted = stretches(context)
    for done, stretch in enumerate(wanted):
        with (out / stretch.file).open("wb") as stream:
            for chunk in context.worker.logprobs(stretch.ids, 1, stretch.route):
                stream.write(np.ascontiguousarray(chunk, np.float32).data)
        context.progress(done + 1, len(wanted))


def measure(context: Context) -> Measurement:
    """KL(reference || candidate) and back, top-1 disagreement, and NLL; ids `divergence/<text>@<window>/<path>/<what>`.

    A row per window and metric: the window's mean. Percentiles are over positions.
    """
    assert context.scratch is not None, "divergence needs the reference's log-probabilities"
    wanted = stretches(context)
    rows, metrics = [], []
    found: dict[Route, list[Positions]] = {"prefill": [], "decode": []}
    for done, stretch in enumerate(wanted):
        positions = _compare(context, stretch)
        found[stretch.route].append(positions)
        for what, values in positions.by_name().items():
            rows.append(
                {
                    "metric": _name(stretch, what),
                    "item_id": f"{stretch.route}-{stretch.index:05d}",
                    "cluster": f"window-{stretch.index:05d}",
                    "score": float(values.mean()),
                    "tokens": len(values),
                }
            )
        context.progress(done + 1, len(wanted))
    for route, all_positions in found.items():
        if all_positions:
            stretch = next(s for s in wanted if s.route == route)
            metrics += [
                _metric(_name(stretch, what), what, route, all_positions) for what in all_positions[0].by_name()
            ]
    return Measurement(metrics, item_table(rows))


@dataclass(frozen=True, slots=True)
class Positions:
    """Divergence at each position of one stretch, nats (disagreement: 0 or 1). Arrays float64 [positions]."""

    kl: np.ndarray
    kl_reverse: np.ndarray
    disagreement: np.ndarray

    def by_name(self) -> dict[str, np.ndarray]:
        """The metrics' short names and their per-position values."""
        return {"kl": self.kl, "kl-reverse": self.kl_reverse, "top1-disagreement": self.disagreement}


def divergences(reference: FloatArray, candidate: FloatArray) -> Positions:
    """Position-wise divergences of two tables of float32 log-probabilities [positions, vocabulary].

    KL = sum p_ref (log p_ref - log p); sums in float64. A probability that underflows to zero contributes nothing on
    its own side, as in the limit. Raises InvalidMeasurement for NaN.
    """
    gap = reference.astype(np.float64) - candidate
    with np.errstate(invalid="ignore"):
        kl = np.nansum(np.where(np.isneginf(reference), 0.0, np.exp(reference.astype(np.float64)) * gap), axis=1)
        back = np.nansum(np.where(np.isneginf(candidate), 0.0, -np.exp(candidate.astype(np.float64)) * gap), axis=1)
    if np.isnan(reference).any() or np.isnan(candidate).any():
        raise InvalidMeasurement("log-probabilities that are not a number")
    differs = (reference.argmax(axis=1) != candidate.argmax(axis=1)).astype(np.float64)
    # Rounding can leave a KL of 1e-9 below zero where the two agree to the last bit but one.
    return Positions(np.maximum(kl, 0.0), np.maximum(back, 0.0), differs)


def _compare(context: Context, stretch: Stretch) -> Positions:
    parts = []
    for expected, chunk in _side_by_side(context, stretch):
        parts.append(divergences(expected, chunk))
    return Positions(*(np.concatenate([getattr(p, name) for p in parts]) for name in Positions.__slots__))


def _side_by_side(context: Context, stretch: Stretch) -> Iterator[tuple[FloatArray, FloatArray]]:
    assert context.scratch is not None
    stored = np.memmap(context.scratch / stretch.file, np.float32, "r").reshape(len(stretch.ids) - 1, -1)
    row = 0
    for chunk in context.worker.logprobs(stretch.ids, 1, stretch.route):
        if chunk.shape[1] != stored.shape[1]:
            raise InvalidMeasurement(f"vocabularies differ: reference {stored.shape[1]}, candidate {chunk.shape[1]}")
        yield np.asarray(stored[row : row + len(chunk)]), chunk
        row += len(chunk)


def _name(stretch: Stretch, what: str) -> str:
    return f"divergence/{stretch.protocol}/{stretch.route}/{what}"


def _metric(name: str, what: str, route: Route, parts: list[Positions]) -> Metric:
    windows = [p.by_name()[what] for p in parts]
    means = np.array([w.mean() for w in windows])
    pooled = np.concatenate(windows)
    half = float(stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)) if len(means) > 1 else None
    share = what == "top1-disagreement"
    path = "one token at a time through the KV cache" if route == "decode" else "whole windows"
    detail = {"positions": len(pooled), "max": float(pooled.max())}
    if not share:
        detail |= {f"p{p:g}": float(np.percentile(pooled, p)) for p in PERCENTILES}
    value = float(means.mean())
    return Metric(
        id=name,
        value=value,
        unit="share of positions" if share else "nats per token",
        n=len(means),
        ci_low=max(0.0, value - half) if half is not None else None,
        ci_high=value + half if half is not None else None,
        higher_is_better=False,
        pairing="to-reference",
        protocol=f"{path}; full vocabulary, float32 log-softmax; mean over {len(means)} windows of window means",
        detail=detail,
    )
