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

from awqbench.backends.base import FloatArray, TopK
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Metric
from awqbench.spec import DivergenceSpec, ParitySpec
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.windows import text_windows

Route = Literal["prefill", "decode"]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# What float32 log-probabilities lose of a sum of one.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window on one of the two paths."""

    route: Route
    index: int
    ids: list[int]
    protocol: str  # suite, text, window and budget, as they stand in metric ids

    @property
    def file(self) -> str:
        """Where the reference's log-probabilities of this stretch are kept."""
        return f"{self.route}-{self.index:05d}.f32"


def stretches(context: Context) -> list[Stretch]:
    """What is measured, prefill first."""
    spec: DivergenceSpec | ParitySpec = context.suite
    windows = text_windows(context, spec.text, spec.window, spec.windows)
    name = f"{spec.kind}/{windows.protocol(spec.window, spec.windows)}"
    numbered = list(zip(windows.places, windows.ids, strict=True))
    found = [Stretch("prefill", i, ids, name) for i, ids in numbered]
    if spec.decode_windows:
        # The decode windows are the starts of the prefill windows: the same text on both paths.
        length = min(spec.decode_window, spec.window)
        name = f"{spec.kind}/{windows.protocol(length, spec.decode_windows)}"
        starts = numbered[: context.budget(spec.decode_windows)]
        found += [Stretch("decode", i, ids[:length], name) for i, ids in starts]
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

    A row per window and metric: the window's mean. Percentiles are over positions. An engine that tells its k likeliest
    tokens alone yields `kl-top<k>-lower-bound` in place of both KLs. Raises NotApplicable for one that tells neither.
    """
    assert context.scratch is not None, "divergence needs the reference's log-probabilities"
    wanted, notes = _served(context, stretches(context))
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
    return Measurement(metrics, item_table(rows), notes=notes)


def _served(context: Context, wanted: list[Stretch]) -> tuple[list[Stretch], list[str]]:
    """The stretches whose path this engine can be measured on, and what must be said of the others."""
    lacking = [route for route in dict.fromkeys(s.route for s in wanted) if not _serves(context, route)]
    if lacking and len(lacking) == len({s.route for s in wanted}):
        context.require("logprobs")
    kept = [stretch for stretch in wanted if stretch.route not in lacking]
    return kept, [f"the {route} path was not measured: no log-probabilities on it" for route in lacking]


def _serves(context: Context, route: Route) -> bool:
    return _full(context, route) or _top_k(context, route)


def _full(context: Context, route: Route) -> bool:
    return context.worker.offers("logprobs" if route == "prefill" else "decode-logprobs")


def _top_k(context: Context, route: Route) -> bool:
    path = context.worker.description.get("topk_path", "prefill")
    return context.worker.offers("topk-logprobs") and path == route


@dataclass(frozen=True, slots=True)
class Positions:
    """Divergence at each position of one stretch, nats (disagreement: 0 or 1). Arrays float64 [positions].

    With `top`, only that many of the candidate's likeliest tokens were known: `kl` is a lower bound, `kl_reverse` is
    empty, and `outside` is the reference's probability of all other tokens.
    """

    kl: np.ndarray
    kl_reverse: np.ndarray
    disagreement: np.ndarray
    outside: np.ndarray
    top: int | None = None

    def by_name(self) -> dict[str, np.ndarray]:
        """The metrics' short names and their per-position values."""
        if self.top is not None:
            return {f"kl-top{self.top}-lower-bound": self.kl, "top1-disagreement": self.disagreement}
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
    return Positions(np.maximum(kl, 0.0), np.maximum(back, 0.0), differs, np.zeros(len(kl)))


def bounded_divergences(reference: FloatArray, top: TopK) -> Positions:
    """What the candidate's k likeliest tokens alone prove of KL(reference || candidate), position by position.

    The tokens that are told contribute their own terms. All others, of mass P in the reference and Q in the candidate,
    contribute at least P log(P / Q) by the log-sum inequality, whatever their shares; equality holds where the two
    agree on the shape of the rest. There is no upper bound: one token that the candidate excludes may cost any amount.
    The likeliest token is known exactly. Raises InvalidMeasurement for NaN.
    """
    told = np.take_along_axis(reference, top.ids.astype(np.int64), axis=1).astype(np.float64)
    given = top.logprobs.astype(np.float64)
    if np.isnan(told).any() or np.isnan(given).any():
        raise InvalidMeasurement("log-probabilities that are not a number")
    with np.errstate(invalid="ignore"):
        inside = np.where(np.isneginf(told), 0.0, np.exp(told) * (told - given)).sum(axis=1)
    outside = np.clip(1.0 - np.exp(told).sum(axis=1), 0.0, 1.0)
    # Rounding may leave the rest with nothing; a larger Q only lowers the bound.
    rest = np.maximum(1.0 - np.exp(given).sum(axis=1), _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(outside > 0, outside * np.log(outside / rest), 0.0)
    best = np.take_along_axis(top.ids, top.logprobs.argmax(axis=1)[:, None], axis=1)[:, 0]
    differs = (reference.argmax(axis=1) != best).astype(np.float64)
    bound = np.maximum(inside + tail, 0.0)
    return Positions(bound, np.empty(0), differs, outside, top=top.ids.shape[1])


def _compare(context: Context, stretch: Stretch) -> Positions:
    parts = list(_side_by_side(context, stretch))
    kl, back, differs, outside = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("kl", "kl_reverse", "disagreement", "outside")
    )
    return Positions(kl, back, differs, outside, parts[0].top)


def _side_by_side(context: Context, stretch: Stretch) -> Iterator[Positions]:
    assert context.scratch is not None
    stored = np.memmap(context.scratch / stretch.file, np.float32, "r").reshape(len(stretch.ids) - 1, -1)
    row = 0
    if not _full(context, stretch.route):
        k = min(context.suite.topk, int(context.worker.description["topk"]), stored.shape[1])
        for top in context.worker.topk_logprobs(stretch.ids, 1, k):
            if top.ids.max(initial=0) >= stored.shape[1]:
                raise InvalidMeasurement(f"token {top.ids.max()} is beyond the reference's {stored.shape[1]}")
            yield bounded_divergences(np.asarray(stored[row : row + len(top.ids)]), top)
            row += len(top.ids)
    else:
        for chunk in context.worker.logprobs(stretch.ids, 1, stretch.route):
            if chunk.shape[1] != stored.shape[1]:
                raise InvalidMeasurement(
                    f"vocabularies differ: reference {stored.shape[1]}, candidate {chunk.shape[1]}"
                )
            yield divergences(np.asarray(stored[row : row + len(chunk)]), chunk)
            row += len(chunk)
    if row != len(stored):
        raise InvalidMeasurement(f"the engine gave {row} of {len(stored)} positions")


def _name(stretch: Stretch, what: str) -> str:
    return f"{stretch.protocol}/{stretch.route}/{what}"


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
    how = "full vocabulary, float32 log-softmax"
    if parts[0].top is not None:
        how = f"the engine's {parts[0].top} likeliest tokens, float32"
        if not share:
            how += "; a lower bound (log-sum inequality over all other tokens)"
            detail["reference_mass_outside"] = float(np.concatenate([p.outside for p in parts]).mean())
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
        protocol=f"{path}; {how}; mean over {len(means)} windows of window means",
        detail=detail,
    )
