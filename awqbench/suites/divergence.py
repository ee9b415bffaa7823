"""Full-vocabulary divergence from the reference, position by position, on the prefill and on the decode path.

Long windows never run the kernels that decode one token at a time, and those are where silent bugs were found: so the
decode path feeds single tokens through the KV cache. The reference's log-probabilities are written once, in float32,
and every candidate is held against the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Metric
from awqbench.spec import DivergenceSpec, ParitySpec
from awqbench.suites.bands import (
    DEFINITIONS,
    Labels,
    band_rows,
    band_table,
    confidence_bands,
    frequency_bands,
    position_bands,
)
from awqbench.suites.base import Context, Measurement, item_table
from awqbench.suites.distances import Positions, bounded_divergences, divergences, joined
from awqbench.suites.means import mean_metric
from awqbench.suites.windows import neighbours, text_windows

Route = Literal["prefill", "decode"]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_UNITS = {"kl": "nats per token", "log": "nats per token", "total": "probability", "top": "share of positions"}


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window on one of the two paths."""

    route: Route
    index: int
    ids: list[int]
    protocol: str  # suite, text, window and budget, as they stand in metric ids
    frequency: Labels  # the frequency band of each predicted token
    cluster: str  # the neighbours that it is alike

    @property
    def file(self) -> str:
        """Where the reference's log-probabilities of this stretch are kept."""
        return f"{self.item}.f32"

    @property
    def item(self) -> str:
        """What its rows are called."""
        return f"{self.route}-{self.index:05d}"


def stretches(context: Context) -> list[Stretch]:
    """What is measured, prefill first."""
    spec: DivergenceSpec | ParitySpec = context.suite
    windows = text_windows(context, spec.text, spec.window, spec.windows)
    bands = frequency_bands(np.asarray(windows.text))

    def stretch(route: Route, index: int, ids: list[int], cluster: str, first: int | None = None) -> Stretch:
        name = f"{spec.kind}/{windows.protocol(len(ids), spec.windows, first)}"
        return Stretch(route, index, ids, name, np.array([bands[token] for token in ids[1:]]), cluster)

    numbered = zip(windows.places, windows.ids, neighbours(windows.places, spec.window), strict=True)
    found = [stretch("prefill", i, ids, near) for i, ids, near in numbered]
    if spec.decode_windows:
        # The decode windows are the starts of the prefill windows: the same text on both paths.
        length = min(spec.decode_window, spec.window)
        places = windows.places[: context.budget(spec.decode_windows)]
        starts = zip(places, windows.ids, neighbours(places, spec.window), strict=False)
        found += [stretch("decode", i, ids[:length], near, spec.decode_windows) for i, ids, near in starts]
    return found


def recorded_bytes(suite: DivergenceSpec | ParitySpec, vocabulary: int) -> int:
    """Most that `record_reference` writes: float32 for each token of the vocabulary at each predicted position."""
    decoded = min(suite.decode_windows, suite.windows) * (min(suite.decode_window, suite.window) - 1)
    return 4 * vocabulary * (suite.windows * (suite.window - 1) + decoded)


def record_reference(context: Context, out: Path) -> None:
    """Write the reference's log-probabilities of every stretch to `out`: float32, rows x vocabulary, row-major."""
    wanted = stretches(context)
    for done, stretch in enumerate(wanted):
        with (out / stretch.file).open("wb") as stream:
            for chunk in context.worker.logprobs(stretch.ids, 1, stretch.route):
                stream.write(np.ascontiguousarray(chunk, np.float32).data)
        context.progress(done + 1, len(wanted))


def measure(context: Context) -> Measurement:
    """Divergences on both paths; ids `divergence/<text>@<window>/<path>/<what>`, `what` as in `distances`.

    A row per window and metric: the window's mean. Percentiles are over positions. An engine that tells its k likeliest
    tokens alone yields `kl-top<k>-lower-bound` in place of both KLs. The divergence suite (not parity) also has
    `<what>-by-<attribute>` with a row per window and band. A path on which an engine tells nothing has its ids among
    the `unmeasured`. Raises NotApplicable for an engine that tells neither.
    """
    assert context.scratch is not None, "divergence needs the reference's log-probabilities"
    wanted, lacking = _served(context, stretches(context))
    found: dict[Route, list[tuple[Stretch, Positions]]] = {"prefill": [], "decode": []}
    for done, stretch in enumerate(wanted):
        found[stretch.route].append((stretch, _compare(context, stretch)))
        context.progress(done + 1, len(wanted))
    metrics, rows = [], []
    for windows in found.values():
        for what in windows[0][1].values if windows else ():
            metrics.append(_metric(what, windows))
            rows += [_row(what, stretch, positions) for stretch, positions in windows]
        if windows and context.suite.kind == "divergence":
            banded, of_bands = _by_band(windows)
            metrics += banded
            rows += of_bands
    unmeasured = {
        _name(stretch, what): f"the {route} path was not measured: no log-probabilities on it"
        for route, stretch in lacking.items()
        for what in (metric.id.rpartition("/")[2] for metric in metrics)
    }
    return Measurement(metrics, item_table(rows), unmeasured=unmeasured)


def _row(what: str, stretch: Stretch, positions: Positions) -> dict[str, Any]:
    return {
        "metric": _name(stretch, what), "item_id": stretch.item, "cluster": stretch.cluster,
        "score": float(positions.values[what].mean()), "tokens": len(positions),
    }  # fmt: skip


def _served(context: Context, wanted: list[Stretch]) -> tuple[list[Stretch], dict[Route, Stretch]]:
    """The stretches whose path this engine can be measured on, and one of each of the other paths."""
    lacking = {stretch.route: stretch for stretch in wanted if not _serves(context, stretch.route)}
    if lacking and len(lacking) == len({s.route for s in wanted}):
        context.require("logprobs")
    return [stretch for stretch in wanted if stretch.route not in lacking], lacking


def _serves(context: Context, route: Route) -> bool:
    return _full(context, route) or _top_k(context, route)


def _full(context: Context, route: Route) -> bool:
    return context.worker.offers("logprobs" if route == "prefill" else "decode-logprobs")


def _top_k(context: Context, route: Route) -> bool:
    path = context.worker.description.get("topk_path", "prefill")
    return context.worker.offers("topk-logprobs") and path == route


def _compare(context: Context, stretch: Stretch) -> Positions:
    return joined(list(_side_by_side(context, stretch)))


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
            own = np.asarray(stretch.ids[row + 1 : row + 1 + len(chunk)])
            yield divergences(np.asarray(stored[row : row + len(chunk)]), chunk, own)
            row += len(chunk)
    if row != len(stored):
        raise InvalidMeasurement(f"the engine gave {row} of {len(stored)} positions")


def _name(stretch: Stretch, what: str) -> str:
    return f"{stretch.protocol}/{stretch.route}/{what}"


def _unit(what: str) -> str:
    return next(unit for start, unit in _UNITS.items() if what.startswith(start))


def _how(stretch: Stretch, positions: Positions, what: str) -> str:
    path = "one token at a time through the KV cache" if stretch.route == "decode" else "whole windows"
    how = f"{path}; full vocabulary, float32 log-softmax"
    if positions.top is not None:
        how = f"{path}; the engine's {positions.top} likeliest tokens, float32"
        if what.startswith("kl"):
            how += "; a lower bound (log-sum inequality over all other tokens)"
    return how + ("; candidate minus reference on the text's own tokens" if what == "log-ppl-ratio" else "")


def _metric(what: str, windows: list[tuple[Stretch, Positions]]) -> Metric:
    stretch, first = windows[0]
    means = np.array([positions.values[what].mean() for _, positions in windows])
    pooled = np.concatenate([positions.values[what] for _, positions in windows])
    signed = what == "log-ppl-ratio"
    detail: dict[str, Any] = {"positions": len(pooled), "max": float(pooled.max())}
    if _unit(what) != "share of positions":
        detail |= {f"p{p:g}": float(np.percentile(pooled, p)) for p in PERCENTILES}
    if signed:
        detail["perplexity_ratio"] = float(np.exp(means.mean()))
    if first.top is not None and what.startswith("kl"):
        detail["reference_mass_outside"] = float(np.concatenate([p.outside for _, p in windows]).mean())
    return mean_metric(
        _name(stretch, what),
        means.tolist(),
        [stretch.cluster for stretch, _ in windows],
        unit=_unit(what),
        protocol=f"{_how(stretch, first, what)}; mean over {len(means)} windows of window means",
        higher_is_better=False,
        pairing="to-reference",
        signed=signed,
        detail=detail,
    )


def _by_band(windows: list[tuple[Stretch, Positions]]) -> tuple[list[Metric], list[dict[str, Any]]]:
    """The metrics `<what>-by-<attribute>` of one path, and their rows.

    Only what is exact is divided: bounds from an engine's top k are looser where more of the mass lies outside.
    """
    stretch, first = windows[0]
    figures = [name for name in ("kl", "log-ppl-ratio", "top1-disagreement") if name in first.values]
    metrics, rows = [], []
    for attribute, definition in DEFINITIONS.items():
        labels = [_labels(attribute, *window) for window in windows]
        table = band_table(
            attribute,
            [
                (s.cluster, own, {name: p.values[name] for name in figures})
                for (s, p), own in zip(windows, labels, strict=True)
            ],
        )
        for what in figures[: 2 if first.top is None else 1]:
            name = _name(stretch, f"{what}-by-{attribute}")
            found = [
                row
                for (s, p), own in zip(windows, labels, strict=True)
                for row in band_rows(name, attribute, own, p.values[what], s.item, s.cluster)
            ]
            metrics.append(
                mean_metric(
                    name,
                    [row["score"] for row in found],
                    [row["cluster"] for row in found],
                    unit=_unit(what),
                    protocol=f"{_how(stretch, first, what)}; mean over windows and bands of the band's mean in the "
                    f"window; bands: {definition}",
                    higher_is_better=False,
                    pairing="to-reference",
                    signed=what == "log-ppl-ratio",
                    detail={"attribute": attribute, "bands": table},
                )
            )
            rows += found
    return metrics, rows


def _labels(attribute: str, stretch: Stretch, positions: Positions) -> Labels:
    if attribute == "position":
        return position_bands(len(positions))
    return stretch.frequency if attribute == "frequency" else confidence_bands(positions.confidence)
