"""What the files of a run directory hold. Versioned: a reader refuses a newer major version and migrates older ones.

Item tables (`items.parquet`) are long: one row per (metric, item), with the columns of `ITEM_COLUMNS` and one string
column `group_<attribute>` per attribute that items can be sliced by.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMA_VERSION = 1
GROUP_PREFIX = "group_"

# name -> pandas dtype. `score` is the item's value of that metric; `cluster` names items that are not independent.
ITEM_COLUMNS: dict[str, str] = {
    "metric": "string",
    "item_id": "string",
    "cluster": "string",
    "score": "float64",
    "correct": "boolean",
    "nll": "float64",
    "prediction": "string",
    "gold": "string",
    "tokens": "Int64",
    "margin": "float64",  # best over second-best choice, in the metric's own log-likelihoods (nats)
    "weight": "float64",  # of the item in its metric, which is a weighted mean then; missing: all alike
}

Status = Literal["ok", "failed", "skipped", "not_applicable"]
VerdictName = Literal["pass", "fail", "inconclusive"]

# How a metric's items become a value, and how two backends' items are compared:
#   difference        value = mean(score); per item, candidate minus reference
#   log-ratio         value = exp(mean(score)); the difference of scores is the logarithm of a ratio (perplexity)
#   to-reference      each score already is a distance to the reference (KL, disagreement): the loss is the score itself
#                     (a `signed` one is a change from the reference, which is tested against zero)
#   ratio-of-medians  value = median(score); compared by the ratio of the two medians (latency); items are not paired
#   none              a single figure without items (a checkpoint's size)
Pairing = Literal["difference", "log-ratio", "to-reference", "ratio-of-medians", "none"]


class Model(BaseModel):
    """Base of every record: unknown keys are errors, so that a typo or a newer file is noticed."""

    model_config = ConfigDict(extra="forbid")


class Metric(Model):
    """One figure of one cell. The id names its protocol: two protocols never share an id."""

    id: str
    value: float | None
    unit: str
    n: int = Field(description="items behind the value")
    ci_low: float | None = None
    ci_high: float | None = None
    ci_level: float = 0.95
    protocol: str = Field(description="one sentence: how it was measured")
    higher_is_better: bool | None = None
    pairing: Pairing = "difference"
    signed: bool = Field(default=False, description="to-reference: a change of either sign, not a distance")
    scores_bias: bool = Field(default=False, description="whether an item that scores 1 was answered with a bias")
    detail: dict[str, Any] = Field(default_factory=dict, description="percentiles, counts, kernel names")

    @property
    def is_distance(self) -> bool:
        """Whether scores are distances to the reference, which are never negative."""
        return self.pairing == "to-reference" and not self.signed

    def cut(self, low: float, high: float) -> tuple[float, float]:
        """An interval of a distance without what no distance can be, whatever its t interval says: below 0, and of a
        share or a probability above 1. Of anything else as it is."""
        if not self.is_distance:
            return low, high
        return max(low, 0.0), min(high, 1.0) if self.unit in ("share of positions", "probability") else high


class TelemetrySummary(Model):
    """What the sampler beside a cell saw, and what watching cost."""

    samples: int
    interval_s: float
    duration_s: float
    sampler_cpu_s: float
    sampler_cpu_share: float = Field(description="sampler CPU time over wall time: a share of one core")
    gpus: list[str] = Field(default_factory=list, description="device names; empty without a GPU")
    gpu_note: str | None = Field(default=None, description="why there are no GPU figures")
    throttled: bool | None = Field(
        default=None, description="a throttle reason was active during the cell; None: no GPU"
    )
    energy_joules: float | None = Field(default=None, description="from NVML's energy counter, all devices")


class CellResult(Model):
    """`cells/<backend>/<suite>/result.json`."""

    schema_version: int = SCHEMA_VERSION
    backend: str
    suite: str
    kind: str = Field(description="the suite's kind: perplexity, divergence, tasks, fairness, latency; or parity")
    role: Literal["reference", "candidate", "control", "noise", "parity"]
    key: str = Field(description="content hash of all that could change the figures")
    status: Status
    reason: str | None = Field(default=None, description="why the status is not ok, in one line")
    notes: list[str] = Field(default_factory=list, description="what could not be measured here though the rest could")
    unmeasured: dict[str, str] = Field(
        default_factory=dict, description="metric id -> why there is no such figure here though the rest could be had"
    )
    log_tail: list[str] = Field(default_factory=list, description="the last lines of a failed cell's log")
    metrics: list[Metric] = Field(default_factory=list)
    engine: dict[str, Any] = Field(
        default_factory=dict, description="what the worker says of itself: kernel, dtype, device"
    )
    started: str = ""
    seconds: dict[str, float] = Field(default_factory=dict, description="load, measure, total")
    memory: dict[str, int] = Field(default_factory=dict, description="bytes: host_peak, device_peak, ...")
    telemetry: TelemetrySummary | None = None


class Manifest(Model):
    """`manifest.json`: what was run, on what, with what."""

    schema_version: int = SCHEMA_VERSION
    awqbench_version: str
    created: str
    finished: str | None = None
    command: list[str] = Field(default_factory=list)
    spec: dict[str, Any]
    spec_hash: str
    policy_hash: str = Field(description="hash of the gates alone, written before anything is measured")
    policy: str = Field(default="", description="what the rules are called: a policy's name, the spec's own rules")
    gates: list[dict[str, Any]] | None = Field(
        default=None, description="the rules in full, so that the run is judged by them whatever a policy becomes later"
    )
    declared_policy_hash: str = Field(default="", description="the same when the run began: differs if gates changed")
    confirms: dict[str, str] | None = Field(
        default=None, description="of a confirmation: the cells of the run around it that it repeats, with their keys"
    )
    model: dict[str, Any] = Field(
        description="source, resolved path, config and weight hashes, label, parameters, layers"
    )
    data: dict[str, str] = Field(default_factory=dict, description="data source -> sha256")
    packages: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0


class Flips(Model):
    """Items whose correctness or answer changed."""

    n: int
    correct_to_wrong: int
    wrong_to_correct: int
    wrong_to_wrong: int = Field(description="wrong in both, with another answer")


class Share(Model):
    """How many of n items, with the 95 % interval of their share."""

    count: int
    share: float
    ci_low: float | None = None
    ci_high: float | None = None


class BiasFlips(Model):
    """Items whose answer turned to the stereotype, and those whose answer turned away from it."""

    n: int
    newly_biased: Share
    newly_unbiased: Share


class Difference(Model):
    """One metric of one candidate against one baseline, on the items both saw."""

    suite: str
    metric: str
    protocol: str
    unit: str
    higher_is_better: bool | None
    pairing: Pairing
    baseline: str
    candidate: str
    role: Literal["candidate", "control", "noise"]
    baseline_value: float | None
    candidate_value: float | None
    delta: float | None = Field(description="signed change in delta_unit, candidate minus baseline")
    delta_unit: str = Field(description="'relative' (0.05 = 5 % more), or the metric's unit")
    ci_low: float | None = None
    ci_high: float | None = None
    ci_level: float = 0.95
    test: str | None = None
    p: float | None = None
    p_adjusted: float | None = Field(default=None, description="Benjamini-Hochberg over the table")
    n: int
    clusters: int | None = None
    mde: float | None = Field(default=None, description="smallest |delta| found with 80 % power at this n")
    flips: Flips | None = None
    bias_flips: BiasFlips | None = Field(default=None, description="of metrics that score bias")
    noise: float | None = Field(default=None, description="delta of the reference against itself: the largest rerun's")
    noise_reach: float | None = Field(default=None, description="largest |delta| that the noise floor explains")
    noise_flips: Flips | None = None
    within_noise: bool | None = None

    @property
    def by_band(self) -> bool:
        """Whether this is a mean over bands (`kl-by-position`), which are shown band by band instead."""
        return "-by-" in self.metric.rsplit("/", 1)[-1]


class OfGroup(Model):
    """One group of one attribute, under one candidate against one baseline."""

    suite: str
    metric: str
    attribute: str
    group: str
    baseline: str
    candidate: str
    role: Literal["candidate", "control", "noise"]
    n: int = Field(description="items of the group")


class GroupDifference(OfGroup):
    """Did compression cost this group more than the others? Difference-in-differences of one group."""

    clusters: int | None = None
    baseline_value: float | None
    candidate_value: float | None
    delta: float | None
    rest_delta: float | None = Field(description="the same delta over the attribute's other groups")
    did: float | None = Field(description="delta minus rest_delta, in the metric's unit")
    ci_low: float | None = None
    ci_high: float | None = None
    ci_level: float = 0.95
    p: float | None = None
    p_adjusted: float | None = None
    mde: float | None = None
    newly_wrong: float | None = Field(default=None, description="share of the group's items that turned wrong")
    newly_correct: float | None = None
    bias_flips: BiasFlips | None = None
    noise: float | None = Field(default=None, description="did of the reference against itself")
    noise_reach: float | None = Field(default=None, description="largest |did| that the noise floor explains")
    within_noise: bool | None = None
    too_few: bool = Field(default=False, description="below the minimum count: shown, never judged")


class WorstGroup(OfGroup):
    """The group of one attribute that lost most, beside what the worst of equal groups would have lost by chance.

    Loss is how much worse the metric became; of a metric without a better side, how much it rose.
    """

    groups: int = Field(description="groups with enough items to be among them")
    loss: float = Field(description="mean loss of that group, in unit")
    upper: float = Field(description="one-sided 95 % bound of the largest true loss of any of the groups")
    excess: float = Field(description="loss minus the mean loss of all groups' items")
    excess_if_equal: float = Field(description="the excess expected by chance if all groups lost alike")
    p: float = Field(description="one-sided, of 'all groups lost alike'; corrected for the number of groups")
    unit: str = Field(description="the metric's unit, or 'relative'")


class Parity(Model):
    """One engine on the unquantized model against the reference: what differs here is the engine, not quantization."""

    backend: str = Field(description="the backend whose cell this is")
    backends: list[str] = Field(description="all backends that run this engine alike")
    engine: str
    engine_version: str | None = None
    dtype: str | None = None
    status: Literal["within", "outside", "unmeasured"]
    reason: str
    kl: float | None = Field(default=None, description="mean KL to the reference, prefill, nats per token")
    kl_decode: float | None = None
    kl_is_lower_bound: bool = Field(default=False, description="from the engine's top k tokens alone")
    disagreement: float | None = Field(default=None, description="share of positions with another top token")
    mean_logprob_error: float | None = Field(default=None, description="mean absolute error of scored tokens, nats")
    same_tokens: float | None = Field(default=None, description="share of texts that its tokenizer splits alike")
    same_bos: bool | None = Field(default=None, description="whether its tokenizer begins a text as the reference's")
    warnings: list[str] = Field(default_factory=list, description="how its own tokenizer differs, in words")
    positions: int = 0


class Comparison(Model):
    """`comparison.json`: holds no clock time, so that a resumed run gives the same bytes."""

    schema_version: int = SCHEMA_VERSION
    reference: str
    noise_floor: list[str] = Field(description="the backends that are the reference again")
    differences: list[Difference] = Field(default_factory=list)
    groups: list[GroupDifference] = Field(default_factory=list)
    worst_groups: list[WorstGroup] = Field(default_factory=list)
    parity: list[Parity] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @field_validator("noise_floor", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """Older records name one backend, or none."""
        return value if isinstance(value, list) else [value] if value else []


class Confirmation(Model):
    """A limit that failed, judged on a second measurement; p is adjusted by Holm over what was measured again."""

    outcome: Literal["confirmed", "not confirmed", "unmeasured"]
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    fresh: int | None = Field(default=None, description="items that the first measurement did not use; None: no items")
    p_worse: float | None = None
    p_holm: float | None = None


class RuleResult(Model):
    """One gate on one metric of one candidate."""

    rule: str
    kind: Literal["non-inferiority", "difference-in-differences"]
    suite: str
    metric: str
    candidate: str
    attribute: str | None = None
    group: str | None = None
    verdict: VerdictName
    margin: float
    unit: str
    estimate: float | None = Field(description="loss: how much worse the candidate is; negative is better")
    lower: float | None = None
    upper: float | None = None
    alpha: float = 0.05
    n: int = 0
    n_needed: int | None = Field(default=None, description="items that would decide it at the loss seen")
    n_needed_at_least: bool = Field(
        default=False, description="n_needed is a lower bound: planned from fewer than 25 independent clusters"
    )
    p_worse: float | None = Field(default=None, description="one-sided p of 'the loss is within the margin'")
    p_holm: float | None = None
    confirmation: Confirmation | None = Field(default=None, description="what measuring again showed, for a failure")
    reason: str


class Verdict(Model):
    """`verdict.json`: may it ship?"""

    schema_version: int = SCHEMA_VERSION
    policy_hash: str
    policy: str = Field(default="", description="what the rules that judged are called")
    overall: VerdictName
    candidates: dict[str, VerdictName] = Field(default_factory=dict)
    rules: list[RuleResult] = Field(default_factory=list)
    invalid: list[str] = Field(default_factory=list, description="cells that failed or were invalid, one line each")
    unjudged: list[str] = Field(
        default_factory=list, description="limits that could not be judged: an engine is missing or cannot measure them"
    )
    not_applicable: list[str] = Field(
        default_factory=list, description="optional rules on metrics that this run did not measure"
    )
    notes: list[str] = Field(default_factory=list, description="what a reader of the verdict must know")
