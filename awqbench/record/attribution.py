"""`attribution/<name>.json`: which weights the damage comes from. Versioned as the other records are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from awqbench.record.schema import Model

ATTRIBUTION_VERSION = 1

By = Literal["linear", "block", "kind"]


class Amount(Model):
    """A damage in the measure's unit, with its 95 % interval over units."""

    value: float
    ci_low: float
    ci_high: float


class Recovery(Amount):
    """Damage that is gone once something is put back; as a share of all damage where there is one to speak of."""

    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None


class Entry(Model):
    """One linear, or other module, or a set of them."""

    name: str
    kind: str | None = Field(default=None, description="the last part of a module's name; None for sets of several")
    block: int | None = None
    shape: list[int] | None = None
    linears: list[str] = Field(default_factory=list, description="its modules, for a set")
    bits: int | None = Field(default=None, description="of its codes; None: not quantized, or not all alike")
    bytes: int = Field(description="what it takes in the checkpoint")
    weight_share: float = Field(description="of the bytes of all changed modules")
    added_bytes: int = Field(description="what keeping it at 16 bits would add")
    estimate: Amount = Field(description="path integral over the estimating units")
    share: float | None = Field(description="of the sum of all estimates; None where no damage is shown")
    measured: Recovery | None = Field(default=None, description="put back alone, on the held-out units")


class Step(Model):
    """Several put back together."""

    names: list[str]
    added_bytes: int
    measured: Recovery


class Stage(Model):
    """One of the two sets of units."""

    units: int
    clusters: int
    group_units: int | None = Field(default=None, description="units of the group; None: no group is asked for")
    tokens: int
    damage: Amount


class Attribution(Model):
    """A whole attribution."""

    schema_version: int = ATTRIBUTION_VERSION
    awqbench_version: str
    created: str
    checkpoint: str
    checkpoint_hash: str
    reference: str
    reference_hash: str
    measure: dict[str, Any] = Field(description="name, unit, text or set, group, and how units were chosen")
    by: By
    points: int = Field(description="Gauss-Legendre nodes")
    seed: int
    estimating: Stage
    confirming: Stage
    explained: float | None = Field(
        description="sum of all estimates over the damage of the same units: 1 is complete; None: no damage at all"
    )
    remainder: Amount = Field(description="damage with everything put back, on the held-out units")
    scaled_groups: int = Field(description="groups of linears whose AWQ scale was undone")
    linears: list[Entry]
    blocks: list[Entry]
    kinds: list[Entry]
    steps: list[Step]
    agreement: dict[str, float | None] = Field(description="Spearman correlations with the estimates or measurements")
    keep: list[str] = Field(description="linears that are worth 16 bits, for quantize --keep")
    notes: list[str] = Field(default_factory=list)
    seconds: float
