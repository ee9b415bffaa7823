"""bench.toml as pydantic models. Unknown keys are errors that name the key, its table and the keys allowed there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from awqbench.backends import registry
from awqbench.errors import UserError, unknown_choice
from awqbench.job import NOISE
from awqbench.quantization.recipe import Method, Search

DType = Literal["float32", "bfloat16", "float16"]
CacheUse = Literal["off", "reference", "all"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Table(BaseModel):
    """Base of every table of bench.toml."""

    # The record is JSON, which has no infinity: a run with one in its spec could not be judged.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSpec(Table):
    """[model]: the unquantized model every difference is taken against."""

    source: str = Field("demo", description="a folder, a packaged name (demo, tiny-random), or a Hugging Face hub id")
    revision: str | None = None
    dtype: DType = Field("float32", description="compute type of every quality suite, the same for all backends")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    trust_remote_code: bool = False


class QuantizeSpec(Table):
    """[quantize]: how the checkpoints of the quantized backends are made."""

    method: Method | None = Field(None, description="how awq backends are made; other kinds say it by their name")
    bits: Literal[2, 3, 4, 8] = 4
    group_size: int = Field(64, description="weights along the input that share a scale; -1: one per output channel")
    symmetric: bool = False
    clip: bool = True
    search: Search = Field(
        "gram", description="trial scales are judged by the inputs' second moments, or by the module's output (slow)"
    )
    grouped_queries: bool = Field(False, description="scale o_proj by way of values that several heads share")
    damping: float = Field(0.03, gt=0, lt=1, description="of error-compensated rounding, as a share of the mean energy")
    calibration: str = Field(
        "gensim-wikipedia[:50%]",
        description="a packaged text, a text or JSONL file, or hub:OWNER/NAME[:CONFIG][:SPLIT]",
    )
    text_field: str | None = Field(None, description="field of a JSONL line or a data set's row that holds its text")
    chat_template: bool = Field(False, description="render each document as one turn of a user")
    protocol: Literal["stream", "documents"] = Field(
        "stream", description="windows spread over the joined text, or AWQ's: whole documents of at most seq_len tokens"
    )
    samples: int = Field(8, gt=0)
    seq_len: int = Field(128, gt=1)
    format: Literal["awq", "compressed-tensors"] = "awq"
    keep_worst: int = Field(0, ge=0, description="linears that quantization hurts most, kept in keep_bits")
    keep: list[str] = Field(
        default_factory=list,
        description="linears kept in keep_bits by name: what a name ends in (mlp.down_proj) or re:EXPRESSION",
    )
    keep_bits: Literal[16, 8] = 16
    bits_budget: float | None = Field(None, gt=2, lt=16, description="bits per weight, spent where they help most")
    workers: int = Field(1, gt=0, description="processes that quantize blocks at once; each needs the whole memory")
    max_memory: ByteSize | None = Field(None, description="refuse what would need more: 8GB, 500MiB")
    overrides: str | None = Field(None, description="TOML file with scale groups that are not found by themselves")
    indivisible: Literal["error", "keep"] = Field(
        "error", description="linears whose input does not divide by the group size: refuse, or keep in full precision"
    )
    dtype: DType = Field("float32", description="compute type of the model while it is quantized")
    allow_pickle: bool = Field(False, description="read weights that are no safetensors")

    @model_validator(mode="after")
    def _consistent(self) -> QuantizeSpec:
        if self.group_size < 1 and self.group_size != -1:
            raise ValueError(f"group_size is {self.group_size} (allowed: 1 or more, or -1: one scale per row)")
        if (self.keep_worst or self.keep) and self.bits_budget is not None:
            other = "keep_worst" if self.keep_worst else "keep"
            raise ValueError(f"{other} and bits_budget are two ways to say the same (allowed: one of them)")
        if self.bits_budget is not None and self.bits_budget <= self.bits:
            raise ValueError(f"bits_budget is {self.bits_budget} (allowed: more than bits, {self.bits})")
        return self


class BackendSpec(Table):
    """[backends.NAME]: one engine with one set of weights."""

    kind: str = Field(description="which engine: awqbench doctor lists the kinds")
    role: Literal["reference", "candidate", "control"] | None = Field(
        None, description="who is judged; by default the kind decides (rtn is a control, shown but not judged)"
    )
    checkpoint: str | None = Field(
        None, description="existing weights instead of new ones: a checkpoint's folder, or a GGUF file for llama.cpp"
    )
    weights: str | None = Field(None, description="name of another backend: run its checkpoint in this engine")
    options: dict[str, Any] = Field(default_factory=dict, description="the engine's own settings")
    quantize: dict[str, Any] = Field(default_factory=dict, description="overrides of [quantize] for this backend")
    dtype: DType | None = Field(None, description="compute type, when it must differ from the model's")
    batch_size: int | None = Field(None, gt=0, description="sequences per forward pass")
    runtime: Literal["auto", "native", "cuda-graph", "static", "transformers"] = Field(
        "auto",
        description="what decodes token by token on packed weights: auto is the native step (CPU) or a CUDA graph, "
        "where proved to fit; static is a static cache without a graph",
    )
    python: str | None = Field(None, description="interpreter of this backend's environment")
    timeout_s: float = Field(3600.0, gt=0, description="longest wait for a worker's next result")

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return registry.kind(value).name
        except UserError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> BackendSpec:
        kind = registry.kind(self.kind)
        if unknown := sorted(set(self.options) - set(kind.options)):
            allowed = ", ".join(kind.options) or f"{kind.name} has none"
            raise ValueError(f"unknown option {unknown[0]!r} of {kind.name} (allowed: {allowed})")
        if self.weights and self.checkpoint:
            raise ValueError("weights and checkpoint are two ways to say the same (allowed: one of them)")
        if (self.weights or (self.checkpoint and kind.weights != "made")) and kind.weights not in {"folder", "gguf"}:
            given = "weights" if self.weights else "checkpoint"
            raise ValueError(f"{given} says nothing to {kind.name}, which runs {_RUNS[kind.weights]}")
        return self


_RUNS = {
    "model": "the unquantized model",
    "made": "a checkpoint made for it",
    "server": "what its server holds",
}


class NoiseFloorSpec(Table):
    """[noise_floor]: the reference against itself, batched differently and as often as asked."""

    enabled: bool = True
    batch_size: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        1, description="differs from the reference's, so that another summation order is used; a list: one run for each"
    )
    repeats: int = Field(1, gt=0, description="runs at each batch size")
    share: float = Field(0.5, gt=0, le=1, description="share of each suite's items measured again")

    @property
    def batch_sizes(self) -> dict[str, int]:
        """The reruns by name: reference-again, reference-again-2 ..., each with its batch size."""
        sizes = self.batch_size if isinstance(self.batch_size, list) else [self.batch_size]
        runs = [size for size in sizes for _ in range(self.repeats)] if self.enabled else []
        return {NOISE if i == 0 else f"{NOISE}-{i + 1}": size for i, size in enumerate(runs)}


class ParitySpec(Table):
    """[parity]: every other engine on the reference's own unquantized weights, before it is blamed on quantization."""

    kind: Literal["parity"] = "parity"
    enabled: bool = True
    text: str = "pydoc-topics"
    window: int = Field(256, gt=1)
    windows: int = Field(4, gt=0)
    decode_window: int = Field(32, gt=1)
    decode_windows: int = Field(2, ge=0)
    topk: int = Field(100, gt=0, description="tokens a position, of an engine that tells no more than its top k")
    max_kl: float = Field(0.01, gt=0, description="largest mean KL to the reference, nats")
    max_disagreement: float = Field(0.05, gt=0, lt=1, description="largest share of positions with another top token")


class CacheSpec(Table):
    """[cache]: answers of models kept between runs, in the user's cache folder."""

    responses: CacheUse = Field(
        "off", description="whose answers are looked up: nobody's, the reference's, or every backend's"
    )
    max_size: ByteSize = Field(
        ByteSize(2_000_000_000), description="of the file; what was not asked for longest is dropped: 2GB, 500MiB"
    )


class SuiteBase(Table):
    """Keys every suite has."""

    backends: list[str] | None = Field(None, description="measure only these backends")
    draw: int = Field(1, gt=0, description="which of its items a budget takes: 1 the first, 2 the next ...; then round")


# Protocols of perplexity whose text is a source of documents: a JSONL or text file, or a hub data set.
OF_DOCUMENTS = ("c4", "ptb", "documents")


SPREAD = "a budget of windows is taken from all along the text, not from its beginning: such windows are independent"


class PerplexitySpec(SuiteBase):
    """Perplexity by one of several protocols, which are not comparable with each other (docs/quality.md)."""

    kind: Literal["perplexity"] = "perplexity"
    protocol: Literal["windows", "c4", "ptb", "documents", "wikitext"] = Field(
        "windows",
        description="windows: GPTQ/AWQ, of one text; c4: of the first 1100 documents, 256 windows; ptb: of sentences; "
        "documents: lm-eval's rolling perplexity, per word and byte; wikitext: lm-eval's task of that name",
    )
    text: str = Field(
        "pydoc-topics",
        description="a packaged text or a text file; of c4, ptb and documents also JSONL or "
        "hub:OWNER/NAME[:CONFIG][:SPLIT]",
    )
    text_field: str | None = Field(None, description="field of a JSONL line or a data set's row that holds its text")
    window: int = Field(2048, gt=1, description="tokens of a window; of documents and wikitext with the prefix token")
    windows: int | None = Field(None, gt=0, description="budget: the first N windows; none: all")
    spread: bool = Field(False, description=SPREAD)
    documents: int | None = Field(None, gt=0, description="budget: the first N documents; none: all")

    @model_validator(mode="after")
    def _fits_its_protocol(self) -> PerplexitySpec:
        rolling = self.protocol in ("documents", "wikitext")
        keys = {"windows": not rolling, "documents": rolling, "text_field": self.protocol in OF_DOCUMENTS}
        if self.spread and self.windows is None:
            raise ValueError("spread says how `windows` are chosen of more (allowed with it: windows)")
        for key, allowed in keys.items():
            if getattr(self, key) is not None and not allowed:
                own = ", ".join(name for name, fits in keys.items() if fits)
                raise ValueError(f"{key} says nothing to protocol {self.protocol!r} (allowed with it: {own})")
        return self


class DivergenceSpec(SuiteBase):
    """Full-vocabulary KL divergence to the reference, on the prefill and on the decode path."""

    kind: Literal["divergence"] = "divergence"
    text: str = "pydoc-topics"
    window: int = Field(512, gt=1)
    windows: int = Field(4, gt=0)
    spread: bool = Field(False, description=SPREAD)
    decode_window: int = Field(64, gt=1, description="tokens fed one at a time through the KV cache")
    decode_windows: int = Field(2, ge=0)
    topk: int = Field(100, gt=0, description="tokens a position, of an engine that tells no more than its top k")


class TasksSpec(SuiteBase):
    """Task accuracy through lm-eval."""

    kind: Literal["tasks"] = "tasks"
    tasks: list[str] = Field(default_factory=lambda: ["awqbench_commonplace"], min_length=1)
    include_path: str | None = Field(None, description="a folder of lm-eval task YAML beside the shipped ones")
    limit: int | None = Field(None, gt=0, description="items per task")
    num_fewshot: int | None = Field(None, ge=0)
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = Field(
        True, description="with a chat template, examples are turns of the conversation; false: all in one turn"
    )
    system_instruction: str | None = Field(None, description="a system prompt before every question")
    slices: list[str] = Field(
        default_factory=list,
        description="columns of the items to compare groups by: 'subject', 'length:4' (four bands), 'gender & age'",
    )
    cluster: str | None = Field(
        None, description="column that names items which are not independent: a passage with many questions"
    )
    min_group: int = Field(20, gt=1, description="groups with fewer items are shown and never judged")


class FairnessSpec(SuiteBase):
    """Subgroup metrics on items that carry group columns."""

    kind: Literal["fairness"] = "fairness"
    sets: list[str] = Field(default_factory=lambda: ["counterfactual"], min_length=1)
    limit: int | None = Field(None, gt=0, description="items per set, whole clusters, evenly over groups")
    min_group: int = Field(20, gt=1, description="groups with fewer items are shown and never judged")
    intersections: list[str] = Field(
        default_factory=list, description="groups of two attributes or more at once: 'gender & origin'"
    )


class LatencySpec(SuiteBase):
    """Time to first token, inter-token gaps, decode throughput, load time, memory and checkpoint size."""

    kind: Literal["latency"] = "latency"
    batch_sizes: list[PositiveInt] = Field(default_factory=lambda: [1, 4], min_length=1)
    prompt_tokens: int = Field(128, gt=0)
    new_tokens: int = Field(32, gt=1)
    repeats: int = Field(5, gt=1)
    warmup: int = Field(1, ge=0)
    dtype: DType | None = Field(None, description="speed may be measured in another type than quality; named in the id")


SuiteSpec = Annotated[
    PerplexitySpec | DivergenceSpec | TasksSpec | FairnessSpec | LatencySpec, Field(discriminator="kind")
]
AnySuite = PerplexitySpec | DivergenceSpec | TasksSpec | FairnessSpec | LatencySpec | ParitySpec
SUITE_KINDS = tuple(cls.model_fields["kind"].default for cls in get_args(get_args(SuiteSpec)[0]))


class GateSpec(Table):
    """[[gates]]: one limit, declared before anything is measured."""

    name: str | None = None
    metric: str = Field(description="pattern of metric ids with * and ?: perplexity/*")
    exclude: list[str] = Field(default_factory=list, description="patterns of metric ids that the rule is not about")
    candidates: list[str] | None = Field(
        None, description="backends judged; by default every candidate, never a control"
    )
    margin: float = Field(ge=0, description="largest tolerable loss, in `unit`")
    unit: Literal["relative", "absolute"] = Field(
        "absolute", description="absolute: the metric's own unit; relative: 0.05 is 5 % of the baseline's value"
    )
    attribute: str | None = Field(
        None, description="judge each group of this attribute by difference-in-differences ('*': every attribute)"
    )
    alpha: float = Field(0.05, gt=0, lt=0.5)
    sided: Literal["one", "two"] = "one"
    cluster: str = Field("cluster", description="column that names items which are not independent")
    min_group: int = Field(20, gt=1)
    on_inconclusive: Literal["inconclusive", "pass", "fail"] = "inconclusive"
    zero_tolerance: bool = Field(
        False, description="any loss that is shown fails, within the margin or not; the margin says what passes"
    )
    optional: bool = Field(
        False, description="where no such metric was measured the rule is not applicable, instead of an error"
    )

    @property
    def suite_kind(self) -> str | None:
        """The kind of suite whose metrics the pattern is about: ids begin with it. None where a wildcard does."""
        kind = self.metric.split("/")[0]
        return None if any(sign in kind for sign in "*?") else {"memory": "latency", "size": "latency"}.get(kind, kind)


class Policy(Table):
    """A policy file."""

    description: str = ""
    policy: str | None = Field(None, description="another policy, whose rules come first")
    gates: list[GateSpec] = Field(default_factory=list)


class RunSpec(Table):
    """A whole bench.toml."""

    version: Literal[1] = 1
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, gt=0, description="torch threads of a worker; by default all cores")
    model: ModelSpec = Field(default_factory=ModelSpec)
    quantize: QuantizeSpec = Field(default_factory=QuantizeSpec)
    backends: dict[str, BackendSpec] = Field(
        default_factory=lambda: {
            "reference": BackendSpec(kind="reference"),
            "awq": BackendSpec(kind="awq"),
            "rtn": BackendSpec(kind="rtn"),
        },
        min_length=1,
    )
    noise_floor: NoiseFloorSpec = Field(default_factory=NoiseFloorSpec)
    parity: ParitySpec = Field(default_factory=ParitySpec)
    suites: dict[str, SuiteSpec] = Field(min_length=1)
    policy: str | None = Field(
        None, description="rules that come before [[gates]]: a policy that awqbench policies list shows, or a TOML file"
    )
    gates: list[GateSpec] = Field(default_factory=list)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    telemetry_interval_s: float = Field(0.5, gt=0)

    @field_validator("suites", mode="before")
    @classmethod
    def _kind_from_name(cls, value: Any) -> Any:
        """[suites.perplexity] needs no kind: a table named after a kind has that kind."""
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": name, **table} if isinstance(table, dict) and name in SUITE_KINDS else table
            for name, table in value.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        for what, names in (("backend", self.backends), ("suite", self.suites)):
            for name in names:
                if not re.match(NAME, name):
                    raise ValueError(f"{what} name {name!r} must be letters, digits, dots, dashes or underscores")
        if "parity" in self.suites:
            raise ValueError("suite name 'parity' is taken by [parity]; choose another")
        references = [name for name, b in self.backends.items() if self.role_of(name) == "reference"]
        if len(references) != 1:
            raise ValueError(f"exactly one backend must be the reference, found {references or 'none'}")
        for name, suite in self.suites.items():
            for backend in suite.backends or ():
                if backend not in self.backends:
                    raise ValueError(f"suites.{name}.backends names {backend!r}; backends are {sorted(self.backends)}")
        for gate in self.gates:
            for backend in gate.candidates or ():
                if backend not in self.backends:
                    raise ValueError(f"gate on {gate.metric!r} names {backend!r}; backends are {sorted(self.backends)}")
        for name, table in self.backends.items():
            try:
                self.quantize_for(name)
            except ValidationError as error:
                raise ValueError(_explain(error, f"backends.{name}.quantize", QuantizeSpec)) from None
            if table.weights is not None:
                made = [other for other, b in self.backends.items() if registry.kind(b.kind).weights == "made"]
                if table.weights not in made:
                    raise ValueError(
                        f"backends.{name}.weights names {table.weights!r} (allowed: {', '.join(made) or 'no backend'}"
                        ", whose checkpoints awqbench makes or reads)"
                    )
        return self

    def role_of(self, name: str) -> Literal["reference", "candidate", "control"]:
        """Who a backend is in the comparison: its declared role, or the one its kind implies."""
        backend = self.backends[name]
        if backend.role:
            return backend.role
        return {"reference": "reference", "rtn": "control"}.get(backend.kind, "candidate")  # type: ignore[return-value]

    @property
    def reference(self) -> str:
        """The name of the reference backend."""
        return next(name for name in self.backends if self.role_of(name) == "reference")

    def quantize_for(self, name: str) -> QuantizeSpec:
        """[quantize] with this backend's overrides applied, and its method settled."""
        backend = self.backends[name]
        settings = {**self.quantize.model_dump(), **backend.quantize}
        # A method for all would turn the control into another candidate: kinds that name their method keep it.
        general = self.quantize.method if backend.kind == "awq" else None
        own = backend.kind if registry.kind(backend.kind).weights == "made" else None
        return QuantizeSpec.model_validate({**settings, "method": backend.quantize.get("method") or general or own})


def load_spec(path: str | Path, overrides: dict[str, Any] | None = None) -> RunSpec:
    """Read and check a bench.toml; `overrides` are dotted keys (`model.source`) set on top of it.

    Raises UserError naming the file, the key and what is allowed.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no spec at {path} (write one with: awqbench init --out {path})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    for dotted, value in (overrides or {}).items():
        table = data
        *tables, key = dotted.split(".")
        for name in tables:
            table = table.setdefault(name, {})
        if isinstance(table, dict):  # else it is refused below, by name
            table[key] = value
    return parse_spec(data, str(path))


def parse_spec(data: dict[str, Any], origin: str = "spec") -> RunSpec:
    """Check a spec given as plain data; raises UserError with one line for the first problem found."""
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError, table: str | None = None, fields: type[BaseModel] | None = None) -> str:
    # A misspelt key also leaves the right one missing: the misspelling is what to show.
    problem = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    # The discriminated union puts the kind into the location: suites.perplexity.perplexity.windw -> without the tag.
    location = [str(part) for part in ((table,) if table else ()) + problem["loc"]]
    if len(location) > 2 and location[0] == "suites" and location[2] in SUITE_KINDS:
        del location[2]
    where = ".".join(location)
    if problem["type"] == "extra_forbidden":
        allowed = list(fields.model_fields) if fields and len(problem["loc"]) == 1 else _allowed_keys(location)
        return str(unknown_choice("key", where, [".".join([*location[:-1], key]) for key in allowed]))
    if problem["type"] == "union_tag_not_found":
        return f"{where} needs a kind (allowed: {', '.join(SUITE_KINDS)})"
    if problem["type"] == "union_tag_invalid":
        return str(unknown_choice(f"suite kind in {where}", problem["input"].get("kind"), SUITE_KINDS))
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and location[-1:] == ["kind"]:
        return f"{where}: {text}"  # it names the value
    if problem["type"] in {"dict_type", "model_type", "model_attributes_type"}:
        text = f"Input should be a table, [{where}]"
    if problem["type"] == "list_type":
        text = "Input should be a list" + (", [[gates]]: one table for each rule" if where == "gates" else "")
    if problem["type"].startswith("byte_size"):
        text = "not an amount of memory (allowed: bytes, or a number with a unit: 8GB, 500MiB)"
    given = problem.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {text}{shown}" if where else text


def _allowed_keys(location: list[str]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "model": ModelSpec, "quantize": QuantizeSpec, "backends": BackendSpec, "noise_floor": NoiseFloorSpec,
        "parity": ParitySpec, "gates": GateSpec, "cache": CacheSpec,
    }  # fmt: skip
    if len(location) == 1:
        return list(RunSpec.model_fields)
    if location[0] == "suites":
        kinds = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(SuiteSpec)[0])}
        found = kinds.get(location[1])
        return (
            list(found.model_fields) if found else sorted({key for cls in kinds.values() for key in cls.model_fields})
        )
    return list(tables[location[0]].model_fields) if location[0] in tables else []


def parse_policy(data: dict[str, Any], origin: str) -> Policy:
    """Check a policy given as plain data; of a whole bench.toml only its policy and gates are read.

    Raises UserError with one line for the first problem found.
    """
    if "suites" in data:
        data = {key: data[key] for key in ("policy", "gates") if key in data}
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error, fields=Policy)}") from None


def parse_quantize(data: dict[str, Any]) -> QuantizeSpec:
    """Check quantization settings; raises UserError with one line for the first problem found."""
    try:
        return QuantizeSpec.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(error, "quantize")) from None
