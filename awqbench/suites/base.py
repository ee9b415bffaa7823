"""What a suite gets and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import count as count_from
from itertools import pairwise
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from awqbench.backends.base import Capability
from awqbench.errors import NotApplicable
from awqbench.job import Role
from awqbench.record.schema import GROUP_PREFIX, ITEM_COLUMNS, Metric
from awqbench.spec import RunSpec, SuiteBase

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from awqbench.worker.client import Worker

_MODULES = {
    "perplexity": "awqbench.suites.perplexity",
    "divergence": "awqbench.suites.divergence",
    "tasks": "awqbench.suites.tasks",
    "fairness": "awqbench.suites.fairness",
    "latency": "awqbench.suites.latency",
    "parity": "awqbench.suites.parity",
}


@dataclass
class Context:
    """All that a suite may use while it measures one backend."""

    spec: RunSpec
    suite: Any  # the suite's own table: PerplexitySpec, TasksSpec, ...
    worker: Worker
    model_dir: Path  # the reference model's folder: tokenizer and config, the same for every backend
    role: Role = "candidate"
    share: float = 1.0  # a noise-floor cell measures this leading share of the items
    scratch: Path | None = None  # the reference's full log-probabilities, for suites that need them
    weights: Path | None = None  # the folder or file that the backend runs, where it is on this machine
    progress: Callable[[int, int], None] = lambda done, total: None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The reference model's tokenizer: token ids, not text, cross to a worker."""
        from awqbench.sources.models import load_tokenizer

        return load_tokenizer(self.model_dir, self.spec.model.trust_remote_code)

    @cached_property
    def asked_whole(self) -> int:
        """Tokens up to which the reference is asked a question whole, so that every engine must be; 0 where that is
        the engine's own affair: of the reference itself, and where another engine than ours stands for it."""
        own = self.spec.backends[self.spec.reference].kind == "reference"
        if not own or self.role in {"reference", "noise"}:
            return 0
        from awqbench.sources.models import positions

        return positions(self.model_dir, self.spec.model.trust_remote_code)

    def require(self, capability: Capability) -> None:
        """Raise NotApplicable when the backend cannot do what this suite rests on."""
        if not self.worker.offers(capability):
            offered = ", ".join(self.worker.description.get("capabilities", ())) or "nothing"
            raise NotApplicable(f"the {self.suite.kind} suite needs {capability}; this engine offers {offered}")

    @property
    def draw(self) -> int:
        """Which of its items a budget takes: 1 the first, 2 those after them."""
        return getattr(self.suite, "draw", 1)  # parity is no suite of the spec

    @property
    def spread(self) -> bool:
        """Whether a budget takes items from all along, rather than the first ones."""
        return bool(getattr(self.suite, "spread", False))

    def chosen(self, available: int, limit: int | None) -> Sequence[int]:
        """Ascending places of the items this cell measures: `limit` of those available, or all.

        A further draw begins where the one before it ended and goes round at the end, so that all draws are of one
        size; see `spread_out` for items from all along. The noise floor's cell measures the draw's leading share.
        """
        count = min(available, limit or available)
        if not count:
            return range(0)
        if self.spread:
            return spread_out(available, count, self.draw)[: self.budget(count)]
        start = (self.draw - 1) * count % available
        places: Sequence[int] = range(start, start + count)
        if start + count > available:
            places = sorted(i % available for i in places)
        return places[: self.budget(count)]

    def budget(self, total: int) -> int:
        """How many of `total` items this cell measures: all, or the noise floor's share (at least one)."""
        return max(1, int(total * self.share)) if total else 0


@dataclass
class Measurement:
    """What one cell yields: metrics, and the rows they were computed from."""

    metrics: list[Metric]
    items: pd.DataFrame = field(default_factory=lambda: item_table([]))
    memory: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)  # metric id -> why there is no such figure


def item_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as an item table with the columns and dtypes of `ITEM_COLUMNS`; unknown columns must be group columns."""
    frame = pd.DataFrame(rows)
    for column, dtype in ITEM_COLUMNS.items():
        if column not in frame:
            frame[column] = pd.NA if dtype != "float64" else float("nan")
        frame[column] = frame[column].astype(dtype)  # type: ignore[call-overload]
    groups = [column for column in frame.columns if column not in ITEM_COLUMNS]
    stray = [column for column in groups if not str(column).startswith(GROUP_PREFIX)]
    if stray:
        raise ValueError(f"item columns {stray} are neither of {list(ITEM_COLUMNS)} nor {GROUP_PREFIX}*")
    frame[groups] = frame[groups].astype("string")
    return frame[[*ITEM_COLUMNS, *groups]]


def spread_out(available: int, count: int, draw: int) -> list[int]:
    """One place in each of `count` parts of equal length that make the whole, ascending: a systematic sample.

    The first draw takes each part's first place. Further ones take others, far from those taken before, until a part
    has none left, and then go round.
    """
    ends = [i * available // count for i in range(count + 1)]
    return [begin + (draw - 1) * _hop(end - begin) % (end - begin) for begin, end in pairwise(ends)]


def _hop(length: int) -> int:
    """The golden section of a length, or the next number that visits all places before it comes back to the first."""
    return next(hop for hop in count_from(max(1, round(0.618 * length))) if gcd(hop, length) == 1)


def budget_suffix(budget: int | None, available: int, draw: int, spread: bool = False) -> str:
    """How a budget that leaves items out stands in a metric id: `+100` for the first hundred, `+100~2` for the next,
    `+100of900` for a hundred from all along.

    Two protocols never share an id, and the first hundred items are another protocol than all of them. The noise
    floor's share is no budget: its rows pair with the reference's.
    """
    if budget is None or budget >= available:
        return ""
    return f"+{budget}" + (f"of{available}" if spread else "") + (f"~{draw}" if draw > 1 else "")


def name_budget(measurement: Measurement, prefix: str, budget: int | None, available: int, draw: int) -> Measurement:
    """Put `budget_suffix` into the metric ids below `prefix`: `tasks/piqa+100/acc`."""
    suffix = budget_suffix(budget, available, draw)
    if not suffix:
        return measurement

    def named(identity: str) -> str:
        return f"{prefix}{suffix}/{identity[len(prefix) + 1 :]}" if identity.startswith(f"{prefix}/") else identity

    items = measurement.items.assign(metric=measurement.items["metric"].map(named).astype("string"))
    metrics = [metric.model_copy(update={"id": named(metric.id)}) for metric in measurement.metrics]
    unmeasured = {named(identity): reason for identity, reason in measurement.unmeasured.items()}
    return Measurement(metrics, items, measurement.memory, measurement.notes, unmeasured)


def measure(context: Context) -> Measurement:
    """Run the suite that the context's table names.

    Raises InvalidMeasurement when the figures must not be believed, UserError for data or settings that don't fit,
    NotApplicable where the backend cannot serve this suite.
    """
    suite: SuiteBase = context.suite
    module = import_module(_MODULES[suite.kind])  # type: ignore[attr-defined]
    result: Measurement = module.measure(context)
    return result
