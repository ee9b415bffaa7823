"""Lines for a terminal while a benchmark runs, and at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from awqbench.kernelbench.compare import APART, OURS, TAKEN_IN, Average, Best, is_layer
from awqbench.kernelbench.floors import dense_bytes, memory_share, microseconds, packed_bytes
from awqbench.kernelbench.problem import Shape
from awqbench.kernelbench.results import Measurement, Session, by_problem
from awqbench.kernelbench.series import claim
from awqbench.kernelbench.shapes import layer_name


def measurement_lines(session: Session, measured: Sequence[Measurement]) -> Iterable[str]:
    """One problem: a headline with the floor, then a line per contender."""
    if not measured:
        return
    shape, m, dtype, mode = measured[0].problem
    read, nominal = session.ceilings.get("read"), session.ceilings.get("nominal")
    floors = ""
    if read:
        packed, dense = packed_bytes(shape, m), dense_bytes(shape, m)
        floors = f", floor {microseconds(packed, read):.1f} us at 4 bits, {microseconds(dense, read):.1f} dense"
    clock = session.after.get("sm_clock_mhz")
    yield f"{layer_name(shape)} {shape} M={m} {dtype} {mode}{floors}{f', {clock:.0f} MHz' if clock else ''}"
    ours = next((each.series for each in measured if each.contender == OURS), None)
    for each in measured:
        series = each.series
        if series is None:
            if is_layer(each) and each.status == "refused":
                continue  # most problems are no decoding step's
            yield f"  {each.contender:12} {each.status}: {each.detail}"
            continue
        share = f" {memory_share(shape, m, series.typical, read):5.0%} of floor" if read else ""
        if nominal:
            share += f" ({memory_share(shape, m, series.typical, nominal):.0%} nominal)"
        beside = ""
        if ours is not None and each.contender != OURS and not is_layer(each):
            beside = f"  ours is {series.typical / ours.typical:.2f}x: {claim(ours, series)}"
        yield (
            f"  {each.contender:12} {series.typical:9.2f} us +-{series.spread:.2f}"
            f" [{series.best:.2f}, {series.worst:.2f}]{share}  error {each.error:.1e}{beside}"
        )


def layer_lines(measurements: Iterable[Measurement]) -> list[str]:
    """A line per problem: one call's time, and those of the other ways with what may be said of them."""
    lines = []
    for (shape, m, dtype, mode), measured in by_problem(measurements).items():
        times = {name: each.series for name, each in measured.items() if is_layer(each) and each.series}
        name = TAKEN_IN if TAKEN_IN in times else APART  # many rows are not taken in
        one = times.pop(name, None)
        if one is not None:
            others = ", ".join(
                f"{other} {each.typical:.2f} ({each.typical / one.typical:.2f}x: {claim(one, each)})"
                for other, each in times.items()
            )
            lines.append(f"  {layer_name(shape)} {shape} M={m} {dtype} {mode}: {name} {one.typical:.2f} us; {others}")
    return lines


def averages_lines(averages: Sequence[Average]) -> Iterable[str]:
    """A line per peer and range of batch sizes."""
    for each in averages:
        yield (
            f"  M {each.bucket:7} {each.peer:12} {each.mean:5.2f} geometric mean, worst {each.worst:.2f} at"
            f" {each.worst_at}; faster may be said for {each.faster} of {each.problems}"
        )


def variant_lines(best: Mapping[tuple[Shape, int, str, str], Best]) -> Iterable[str]:
    """A line per problem: what the default should choose there."""
    for (shape, m, dtype, mode), each in best.items():
        default = f", the default takes {each.default_us:.2f}" if each.default_us else ""
        yield f"  {layer_name(shape)} {shape} M={m} {dtype} {mode}: {each.variant} {each.us:.2f} us{default}"
