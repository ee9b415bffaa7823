"""Mixed precision: which linears keep more bits, by what rounding each of them alone does to its block's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from awqbench.errors import UserError
from awqbench.formats.scheme import Scheme
from awqbench.quantization.patterns import matches, patterns

KEEP_BITS = (8, 16)


@dataclass(frozen=True, slots=True)
class Mixing:
    """What is asked for: the `worst` N linears and those that `keep` names at `bits`, or as many as an average of
    `budget` bits allows. `keep` holds patterns, see `patterns.py`.
    """

    worst: int = 0
    budget: float | None = None
    bits: int = 16
    keep: Sequence[str] = ()

    @property
    def wanted(self) -> bool:
        """Whether anything is to be kept at all."""
        return self.worst > 0 or self.budget is not None or len(self.keep) > 0

    def names(self, linear: str) -> bool:
        """Whether a linear is to be kept by its name."""
        return any(matches(pattern, linear) for pattern in self.keep)

    def check_names(self, linears: Sequence[str]) -> None:
        """Raise UserError for a pattern that stands for none of the model's quantized linears."""
        for pattern in self.keep:
            if not any(matches(pattern, name) for name in linears):
                raise UserError(
                    f"keep: {pattern!r} matches no quantized linear (allowed: names such as {linears[0]!r})"
                )

    def check(self, scheme: Scheme) -> None:
        """Raise UserError for what contradicts itself or the scheme."""
        if self.bits not in KEEP_BITS:
            raise UserError(f"keep bits is {self.bits} (allowed: {', '.join(map(str, KEEP_BITS))})")
        if self.worst < 0:
            raise UserError(f"keep worst is {self.worst} (allowed: 0 or more)")
        if (self.worst or self.keep) and self.budget is not None:
            other = "keep worst" if self.worst else "keep"
            raise UserError(f"{other} and a bits budget exclude each other (allowed: one of them)")
        patterns("keep", self.keep)
        if self.wanted and self.bits <= scheme.bits:
            raise UserError(f"keep bits is {self.bits}, but all linears have {scheme.bits} (allowed: more bits)")
        least = bits_per_weight(scheme)
        if self.budget is not None and not self.budget >= least:  # nor a NaN
            raise UserError(
                f"a budget of {self.budget} bits per weight is below what {scheme} takes: {least:.3f} (allowed: more)"
            )


def bits_per_weight(scheme: Scheme, inputs: int = 4096) -> float:
    """Codes with their float16 scale, and zero point where there is one, spread over the group; 16 bits lack both."""
    if scheme.bits == 16:
        return 16.0
    extra = 16 + (0 if scheme.symmetric else scheme.bits)
    return scheme.bits + extra * scheme.groups(inputs) / inputs if scheme.groups(inputs) else float(scheme.bits)


def choose(
    rows: Sequence[Mapping[str, Any]], shared: Sequence[Sequence[str]], scheme: Scheme, mixing: Mixing
) -> dict[str, Any]:
    """The linears to keep at more bits, with what that buys and costs: the table of quantize.json.

    `rows` are the linears with name, shape and block_error, the relative squared error of the block's output with this
    linear alone rounded; `shared` names those that read one tensor. These are raised together, since engines fuse them
    (queries, keys and values; gate and up) and then need one precision. N worst are counted by that error before the
    ones that go with them, as are those that are named; a budget is spent by error per added bit. `scheme` is the one
    by which all take room (`Layout.held`).
    """
    raised = replace(scheme, bits=mixing.bits)
    cost = {row["name"]: _bits(row, raised) - _bits(row, scheme) for row in rows}
    spent = sum(_bits(row, scheme) for row in rows)
    weights, total = sum(map(_weights, rows)), sum(map(_error, rows))
    sets = _sets(rows, shared)
    if mixing.budget is None:
        worst = sorted(rows, key=lambda row: (-_error(row), row["name"]))[: mixing.worst]
        names = {row["name"] for row in worst} | {row["name"] for row in rows if mixing.names(row["name"])}
        kept = [row for each in sets if any(row["name"] in names for row in each) for row in each]
    else:
        kept, left = [], mixing.budget * weights - spent
        costs = [sum(cost[row["name"]] for row in each) for each in sets]
        gains = [sum(map(_error, each)) / price for each, price in zip(sets, costs, strict=True)]
        for place in sorted(range(len(sets)), key=lambda place: (-gains[place], place)):
            if costs[place] <= left:
                kept += sets[place]
                left -= costs[place]
    kept.sort(key=lambda row: (-_error(row), row["name"]))
    added = sum(cost[row["name"]] for row in kept)
    return {
        "keep_bits": mixing.bits,
        "bits_per_weight_before": spent / weights,
        "bits_per_weight": (spent + added) / weights,
        "error_removed": sum(map(_error, kept)) / total if total else 0.0,
        "linears": [
            {
                "name": row["name"],
                "block_error": row["block_error"],
                "share": _error(row) / total if total else None,
                "added_bytes": round(cost[row["name"]] / 8),
            }
            for row in kept
        ],
    }


def _sets(rows: Sequence[Mapping[str, Any]], shared: Sequence[Sequence[str]]) -> list[list[Mapping[str, Any]]]:
    """The rows parted into sets that go together, in their order."""
    first = {name: names[0] for names in shared for name in names}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(first.get(row["name"], row["name"]), []).append(row)
    return list(found.values())


def _bits(row: Mapping[str, Any], scheme: Scheme) -> float:
    """What a linear takes."""
    return _weights(row) * bits_per_weight(scheme, row["shape"][1])


def _weights(row: Mapping[str, Any]) -> int:
    out, inputs = row["shape"]
    return int(out * inputs)


def _error(row: Mapping[str, Any]) -> float:
    return row["block_error"] or 0.0
