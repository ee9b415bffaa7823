"""`attribute`: a checkpoint and its reference in, a table of who did the damage out."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from awqbench import __version__
from awqbench.attribution.agreement import agreement
from awqbench.attribution.confirm import Confirmer
from awqbench.attribution.cost import Cost, step_counts
from awqbench.attribution.dense import load_candidate, load_reference
from awqbench.attribution.parametrization import Unrounded, unrounded
from awqbench.attribution.parts import Part, changed_parts, gathered
from awqbench.attribution.path import measure, path_integral
from awqbench.attribution.recovery import Sample, worst_group
from awqbench.attribution.tables import entries, keep_patterns
from awqbench.attribution.units import Units, item_units, text_units
from awqbench.errors import UserError
from awqbench.fingerprint import model_hash
from awqbench.formats.settings import context_length
from awqbench.record.attribution import Attribution, By, Stage
from awqbench.sources.models import check_causal_lm, load_tokenizer
from awqbench.stats.inputs import Floats

Progress = Callable[[int, int, str], None]
# Units of a group that is found, not named: fewer say too little of who suffers.
_LEAST_OF_WORST = 5


def attribute(request: Mapping[str, Any], progress: Progress) -> Attribution:
    """Estimate every part's share of the damage, then put the first of them back and measure.

    `request`: checkpoint and reference (folders), reference_label, measure (text, window and windows, or set, items,
    attribute, group and loss), by, top, points, seed, max_minutes, device, trust_remote_code. Raises UserError for what
    the user can mend, InvalidMeasurement for a damage that is not finite or a group too small.
    """
    with tempfile.TemporaryDirectory(prefix="awqbench-attribution-") as scratch:
        return _Attributing(request, progress, Path(scratch)).run()


class _Attributing:
    def __init__(self, request: Mapping[str, Any], progress: Progress, scratch: Path) -> None:
        self.request, self.progress = request, progress
        self.checkpoint, self.folder = Path(request["checkpoint"]), Path(request["reference"])
        self.trust: bool = request["trust_remote_code"]
        self.points: int = request["points"]
        self.notes: list[str] = []
        self.done, self.total, self.what = 0, 1, "loading"
        self.units = self._units(scratch)

    def run(self) -> Attribution:
        started = time.perf_counter()
        units, damage = self.units, self.units.damage
        self._say("loading")
        model, packed = load_candidate(self.checkpoint, self.trust)
        seconds = time.perf_counter()
        found = self._reference(model)
        parts, deltas = changed_parts(model, found.weights, packed)
        found.weights.clear()
        gc.collect()
        if not parts:
            raise UserError(f"{self.checkpoint} and the reference hold the same weights: there is nothing to attribute")
        cost = self._cost(parts, time.perf_counter() - seconds)

        self._say("measuring the damage")
        estimating = measure(model, damage, units.estimating, self._tick)
        units = self._settled(units, estimating)
        sample = units.sample(units.estimating)
        confirming = measure(model, damage, units.confirming, self._tick)
        self._say("estimating")
        by_parameter = path_integral(model, deltas, damage, units.estimating, self.points, self._tick)
        shares = _by_part(parts, by_parameter)
        total = sample.amount(estimating)
        tables = {by: entries(gathered(parts, by), shares, sample, total) for by in get_args(By)}
        confirmer = Confirmer(model, deltas, units, confirming, self._tick)
        by: By = self.request["by"]
        sets = gathered(parts, by)
        ranked = {entry.name: sets[entry.name] for entry in tables[by][: cost.top]}
        for place, entry in enumerate(tables[by][: cost.top]):
            self._say(f"putting back {entry.name}")
            tables[by][place] = entry.model_copy(update={"measured": confirmer.alone(sets[entry.name])})
        self._say("putting back several")
        steps = [confirmer.together(ranked, count) for count in step_counts(len(ranked))]
        remainder = confirmer.remainder(parts)

        summed = sum(sample.amount(values).value for values in shares.values())
        stages = [
            self._stage(units, half, values)
            for half, values in ((units.estimating, estimating), (units.confirming, confirming))
        ]
        self._judge(stages, sample, remainder.value, found)
        return Attribution(
            awqbench_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            checkpoint=self.checkpoint.resolve().name,
            checkpoint_hash=model_hash(self.checkpoint),
            reference=self.request["reference_label"],
            reference_hash=model_hash(self.folder),
            measure=units.about,
            by=by,
            points=self.points,
            seed=self.request["seed"],
            estimating=stages[0],
            confirming=stages[1],
            explained=summed / total.value if total.value else None,
            remainder=remainder,
            scaled_groups=found.scaled,
            linears=tables["linear"],
            blocks=tables["block"],
            kinds=tables["kind"],
            steps=steps,
            agreement=agreement(tables["linear"], _recorded(self.checkpoint)),
            keep=keep_patterns(by, tables[by]),
            notes=self.notes,
            seconds=round(time.perf_counter() - started, 1),
        )

    def _units(self, scratch: Path) -> Units:
        asked = dict(self.request["measure"])
        limit = context_length(check_causal_lm(self.folder, self.trust)) or 10**9
        tokenizer = load_tokenizer(self.folder, self.trust)
        self.probe = tokenizer("The quick brown fox jumps over the lazy dog. " * 4)["input_ids"]
        if "set" in asked:
            name, items = asked.pop("set"), asked.pop("items")
            return item_units(tokenizer, name, items, limit, seed=self.request["seed"], **asked)
        return text_units(tokenizer, **asked, limit=limit, scratch=scratch)

    def _reference(self, model: Any) -> Unrounded:
        """Record what the reference says of every unit, and find its weights in the checkpoint's own scales."""
        reference = load_reference(self.folder, model, self.trust)
        device = self.request["device"]
        reference.to(device)
        model.to(device)
        units = [*self.units.estimating, *self.units.confirming]
        self.total = sum(self.units.damage.tokens)
        self._say("the reference")
        begun = time.perf_counter()
        with torch.no_grad():
            for unit in units:
                self.units.damage.record(reference, unit)
                self._tick(self.units.damage.tokens[unit])
        self.per_token = (time.perf_counter() - begun) / self.done
        self._say("undoing scales")
        return unrounded(reference, model, torch.tensor([self.probe]))

    def _cost(self, parts: Sequence[Part], spent: float) -> Cost:
        units = self.units
        sets = len(gathered(parts, self.request["by"]))
        tokens = units.tokens(units.estimating), units.tokens(units.confirming)
        cost = Cost(*tokens, self.points, min(self.request["top"], sets))
        if limit := self.request["max_minutes"]:
            top = cost.within(60 * limit - spent, self.per_token)
            if top < cost.top:
                self.notes.append(f"{top} of {cost.top} put back, to keep to {limit:g} minutes")
                cost = Cost(*tokens, self.points, top)
        self.total = cost.total
        return cost

    def _settled(self, units: Units, values: Floats) -> Units:
        """The units with the group that suffers most, where an attribute but no group was named."""
        if units.group is not None or not units.groups:
            return units
        groups = [units.groups[unit] for unit in units.estimating]
        chosen = worst_group(values, groups, _LEAST_OF_WORST)
        self.notes.append(f"{chosen} is the group that the estimating half shows most harm to")
        return units.of(chosen)

    def _stage(self, units: Units, half: Sequence[int], values: Floats) -> Stage:
        sample: Sample = units.sample(half)
        return Stage(
            units=len(half),
            clusters=int(sample.codes.max()) + 1,
            group_units=int(sample.in_group.sum()) if units.group is not None else None,
            tokens=units.tokens(half),
            damage=sample.amount(values),
        )

    def _judge(self, stages: Sequence[Stage], sample: Sample, remainder: float, found: Unrounded) -> None:
        """Say what makes the figures mean less than they seem to."""
        self.notes += found.notes
        for name, stage in zip(("estimating", "held-out"), stages, strict=True):
            if not sample.shown(stage.damage):
                self.notes.append(f"no damage is shown on the {name} half (its interval holds 0): shares mean little")
        damage = abs(stages[1].damage.value)
        if abs(remainder) > max(1e-4, 0.01 * damage):
            self.notes.append("with everything put back damage remains: the two differ in more than their weights")

    def _tick(self, tokens: int) -> None:
        self.done += tokens
        self.progress(self.done, self.total, self.what)

    def _say(self, what: str) -> None:
        self.what = what
        self.progress(self.done, self.total, what)


def _by_part(parts: Sequence[Part], by_parameter: Mapping[str, Floats]) -> dict[str, Floats]:
    """Contributions (units,) by module."""
    found: dict[str, Floats] = {}
    for name, values in by_parameter.items():
        owner = name.rpartition(".")[0]
        found[owner] = found.get(owner, np.zeros(len(values))) + values
    return {part.name: found[part.name] for part in parts}


def _recorded(checkpoint: Path) -> list[dict[str, Any]]:
    """The rows of quantize.json, where the checkpoint has one."""
    try:
        rows = json.loads((checkpoint / "quantize.json").read_text(encoding="utf-8"))["linears"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if isinstance(row, dict) and "name" in row]
