"""What a spec makes the run do, in which order, and what each job's key depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awqbench import engines
from awqbench.backends import registry
from awqbench.backends.kind import Kind
from awqbench.engines import parity_owners
from awqbench.environments import Interpreter
from awqbench.errors import UserError
from awqbench.executors.cell import GGUF_FILE, _weights
from awqbench.job import NOISE
from awqbench.plan import Plan, make_plan
from awqbench.record.layout import RunDirectory
from awqbench.sources.models import ResolvedModel
from awqbench.spec import parse_spec
from awqbench.weights import kernel_identity

BACKENDS = {kind: {"kind": kind} for kind in ("reference", "awq", "rtn")}
SPEC: dict[str, Any] = {
    "quantize": {"calibration": "pydoc-topics[:50%]"},
    "suites": {
        "perplexity": {"text": "pydoc-topics[50%:]", "window": 64, "windows": 2},
        "divergence": {"text": "pydoc-topics[50%:]", "window": 64, "windows": 2},
        "latency": {"repeats": 2},
    },
}


def plan(**changes: Any) -> Plan:
    model = ResolvedModel(Path("unused"), "m", "path")
    return make_plan(parse_spec({**SPEC, **changes}), model, changes.pop("model_hash", "weights-1"))


def keys(made: Plan) -> dict[str, str]:
    return {job.id: job.key for job in made.jobs}


def test_jobs_and_their_order() -> None:
    assert [job.id for job in plan().jobs] == [
        "checkpoint/awq",
        "checkpoint/rtn",
        "cell/reference/perplexity",
        "logprobs/divergence",
        "cell/reference-again/perplexity",
        "cell/reference-again/divergence",
        "cell/awq/perplexity",
        "cell/awq/divergence",
        "cell/rtn/perplexity",
        "cell/rtn/divergence",
        "cell/reference/latency",
        "cell/reference-again/latency",
        "cell/awq/latency",
        "cell/rtn/latency",
    ]


def test_every_job_comes_after_what_it_needs() -> None:
    made, seen = plan(), set()
    for job in made.jobs:
        assert set(job.needs) <= seen
        seen.add(job.id)
    assert made.job("cell/awq/divergence").needs == ("checkpoint/awq", "logprobs/divergence")


def test_the_noise_floor_is_the_reference_in_other_batches() -> None:
    made = plan(noise_floor={"batch_size": 5, "share": 0.25})
    assert made.noise_floor == (NOISE,)
    assert made.backend(NOISE).kind == "reference"
    assert made.backend(NOISE).batch_size == 5
    assert {job.share for job in made.jobs if job.backend == NOISE} == {0.25}
    assert plan(noise_floor={"enabled": False}).noise_floor == ()


def test_the_noise_floor_may_be_measured_several_times() -> None:
    made = plan(noise_floor={"batch_size": [1, 8], "repeats": 2, "share": 0.5})
    names = [NOISE, f"{NOISE}-2", f"{NOISE}-3", f"{NOISE}-4"]
    assert made.noise_floor == tuple(names)
    assert [made.backend(name).batch_size for name in names] == [1, 1, 8, 8]
    for suite in made.spec.suites:
        cells = [job for job in made.jobs if job.kind == "cell" and job.suite == suite and job.role == "noise"]
        assert [(job.backend, job.share) for job in cells] == [(name, 0.5) for name in names]
    with pytest.raises(UserError, match=f"'{NOISE}-2' is taken by the noise floor"):
        plan(noise_floor={"repeats": 2}, backends={"reference": {"kind": "reference"}, f"{NOISE}-2": {"kind": "awq"}})


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        *(
            ({"model": {key: value}}, {"checkpoint", "reference", "again", "awq", "rtn", "logprobs"})
            for key, value in {"dtype": "bfloat16", "trust_remote_code": True}.items()
        ),
        ({"backends": {**BACKENDS, "awq": {"kind": "awq", "quantize": {"bits": 3}}}}, {"/awq"}),
        ({"quantize": {**SPEC["quantize"], "method": "awq+gptq"}}, {"/awq"}),
        *(
            ({"quantize": {**SPEC["quantize"], key: value}}, {"/awq", "/rtn"})
            for key, value in {
                "group_size": -1, "symmetric": True, "search": "module", "damping": 0.1, "grouped_queries": True,
                "protocol": "documents",
                "chat_template": True, "format": "compressed-tensors", "keep_worst": 2, "keep_bits": 8,
                "bits_budget": 5.0, "samples": 3, "indivisible": "keep",
            }.items()
        ),
        ({"quantize": {**SPEC["quantize"], "max_memory": "8GB"}}, set()),
        ({"quantize": {**SPEC["quantize"], "workers": 2}}, set()),
        ({"noise_floor": {"batch_size": 7}}, {"again"}),
        ({"gates": [{"metric": "*", "margin": 0.1}]}, set()),
        ({"telemetry_interval_s": 2.0}, set()),
        ({"backends": {**BACKENDS, "rtn": {"kind": "rtn", "role": "candidate"}}}, {"cell/rtn"}),
    ],
)  # fmt: skip
def test_a_change_touches_the_cells_it_can_change(changes: dict[str, Any], touched: set[str]) -> None:
    before, after = keys(plan()), keys(plan(**changes))
    changed = {name for name in before if before[name] != after[name]}
    for name in before:
        assert (name in changed) == any(mark in name for mark in touched), name


def test_the_reference_may_be_a_checkpoint_that_is_made() -> None:
    made = plan(backends={"awq": {"kind": "awq", "role": "reference"}, "rtn": {"kind": "rtn"}})
    run = RunDirectory(Path("run"))
    for job in made.jobs:
        if job.backend in {"awq", NOISE} and job.kind != "checkpoint":
            assert "checkpoint/awq" in job.needs, job.id
            assert _weights(made, job, run) == run.checkpoint("awq"), job.id


def test_a_suite_change_touches_that_suite_alone() -> None:
    suites = {**SPEC["suites"], "perplexity": {"text": "pydoc-topics[50%:]", "window": 64, "windows": 3}}
    before, after = keys(plan()), keys(plan(suites=suites))
    assert {name for name in before if before[name] != after[name]} == {n for n in before if n.endswith("/perplexity")}


def test_other_calibration_text_touches_checkpoints_and_their_cells() -> None:
    before, after = keys(plan()), keys(plan(quantize={"calibration": "pydoc-topics[:40%]"}))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "/awq" in name or "/rtn" in name}


def test_a_subset_of_backends_keeps_the_reference() -> None:
    suites = {"perplexity": {**SPEC["suites"]["perplexity"], "backends": ["awq"]}}
    cells = [job.id for job in plan(suites=suites).jobs if job.kind == "cell"]
    assert cells == ["cell/reference/perplexity", "cell/reference-again/perplexity", "cell/awq/perplexity"]


def test_an_edited_overrides_file_touches_checkpoints_and_their_cells(tmp_path: Path) -> None:
    path = tmp_path / "groups.toml"
    path.write_text("")
    quantize = {**SPEC["quantize"], "overrides": str(path)}
    before = keys(plan(quantize=quantize))
    path.write_text("[[groups]]\n")
    after = keys(plan(quantize=quantize))
    assert {name for name in before if before[name] != after[name]} == {n for n in before if "/awq" in n or "/rtn" in n}


def test_mistakes_are_found_before_anything_runs(tmp_path: Path) -> None:
    for settings, message in (
        ({"bits": 8}, "autoawq format holds codes of at most 4 bits"),
        ({"keep_worst": 2, "keep_bits": 8}, "autoawq format holds codes of at most 4 bits"),
        ({"overrides": "none.toml"}, "no overrides file at none.toml"),
        ({"calibration": str(tmp_path / "none.jsonl")}, "no text file at"),
        ({"text_field": "body"}, "plain text and has no field 'body'"),
    ):
        with pytest.raises(UserError, match=message):
            plan(quantize={**SPEC["quantize"], **settings})
    with pytest.raises(UserError, match="taken by the noise floor"):
        plan(backends={"reference": {"kind": "reference"}, NOISE: {"kind": "awq"}})
    with pytest.raises(UserError, match="no folder at"):
        plan(backends={"reference": {"kind": "reference"}, "a": {"kind": "awq", "checkpoint": "none/here"}})
    with pytest.raises(UserError, match="unknown text"):
        plan(suites={"perplexity": {"text": "nonesuch"}})


def test_on_a_gpu_the_cuda_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_identity("cuda:0")
    monkeypatch.setattr("awqbench.ops.cuda_build.identity", lambda: "another")
    assert kernel_identity("cuda:0") != before
    assert kernel_identity("cpu") == before[:-1]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of engines that are not the reference's, with nothing behind them: a plan starts none."""
    kinds = {
        "folders": Kind("folders", "x:X", "", "folder", engine="one", options={"mode": "", "form": ""}),
        "files": Kind("files", "x:X", "", "gguf", engine="two", options={"gguf": ""}, weight_options=("gguf",)),
        "far": Kind("far", "x:X", "", "server", engine="three", options={"base_url": ""}),
        "absent": Kind("absent", "x:X", "", "folder", engine="four", modules=("no_such_module",), environment="four"),
    }
    whole = {**registry.kinds(), **kinds}
    monkeypatch.setattr(registry, "kinds", lambda: whole)


def foreign_plan(**more: Any) -> Plan:
    return plan(
        backends={"reference": {"kind": "reference"}, "awq": {"kind": "awq"}} | more,
        suites={"perplexity": SPEC["suites"]["perplexity"]},
        noise_floor={"enabled": False},
    )


@pytest.mark.usefixtures("foreign")
def test_another_engine_runs_what_one_of_ours_made() -> None:
    made = foreign_plan(theirs={"kind": "folders", "weights": "awq"}, file={"kind": "files", "weights": "awq"})
    assert [job.id for job in made.jobs] == [
        "checkpoint/awq",
        "gguf/file",
        "gguf/file@parity",
        "cell/reference/perplexity",
        "logprobs/parity",
        "cell/awq/perplexity",
        "cell/theirs/parity",
        "cell/theirs/perplexity",
        "cell/file/parity",
        "cell/file/perplexity",
    ]
    assert made.job("cell/theirs/perplexity").needs == ("checkpoint/awq",)
    assert made.job("gguf/file").needs == ("checkpoint/awq",)
    assert made.job("cell/file/perplexity").needs == ("gguf/file",)
    assert made.job("cell/file/parity").needs == ("logprobs/parity", "gguf/file@parity")
    assert made.job("gguf/file@parity").needs == ()
    assert {job.role for job in made.jobs if job.suite == "parity" and job.kind == "cell"} == {"parity"}


@pytest.mark.usefixtures("foreign")
def test_the_reference_may_be_a_file_that_is_exported() -> None:
    made = plan(backends={"file": {"kind": "files", "role": "reference"}, "other": {"kind": "folders"}})
    run = RunDirectory(Path("run"))
    assert made.job("logprobs/parity").needs == ("gguf/file",)
    for job in made.jobs:
        if job.backend in {"file", NOISE} and job.kind != "gguf":
            assert _weights(made, job, run) == run.scratch(made.job("gguf/file").key) / GGUF_FILE, job.id


@pytest.mark.usefixtures("foreign")
def test_parity_with_a_reference_of_another_type_is_measured_anew() -> None:
    before, after = (
        keys(foreign_plan(reference={"kind": "reference", "dtype": dtype}, them={"kind": "folders"}))
        for dtype in ("float32", "bfloat16")
    )
    changed = {name for name in before if before[name] != after[name]}
    assert {"logprobs/parity", "cell/them/parity"} <= changed
    assert "cell/them/perplexity" not in changed


@pytest.mark.usefixtures("foreign")
def test_one_parity_for_all_that_run_an_engine_alike() -> None:
    made = foreign_plan(
        small={"kind": "files", "weights": "awq"},
        plain={"kind": "files", "options": {"gguf": "f16"}},
        half={"kind": "files", "dtype": "float16"},
        far={"kind": "far", "options": {"base_url": "http://localhost:1"}},
    )
    assert parity_owners(made.spec) == {"small": "small", "plain": "small", "half": "half", "far": "far"}
    assert made.job("cell/far/perplexity").needs == ()
    assert foreign_plan(far={"kind": "far"}).spec.parity.enabled
    off = parse_spec({**SPEC, "parity": {"enabled": False}, "backends": {**BACKENDS, "far": {"kind": "far"}}})
    assert parity_owners(off) == {}


@pytest.mark.usefixtures("foreign")
def test_an_engine_that_is_installed_later_is_measured_then(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(foreign_plan(them={"kind": "absent"}))
    found = Interpreter("/env/bin/python", {"engine": "1"}, "environment")
    monkeypatch.setattr(engines, "resolve", lambda kind, python: found)
    after = keys(foreign_plan(them={"kind": "absent"}))
    changed = {name for name in before if before[name] != after[name]}
    assert {"cell/them/perplexity", "cell/them/parity"} <= changed
    found = Interpreter("/env/bin/python", {"engine": "2"}, "environment")
    later = keys(foreign_plan(them={"kind": "absent"}))
    assert later["cell/them/perplexity"] != after["cell/them/perplexity"]


@pytest.mark.usefixtures("foreign")
def test_weights_that_are_not_there(tmp_path: Path) -> None:
    for backend, message in (
        ({"kind": "folders", "checkpoint": str(tmp_path / "none")}, "no folder at"),
        ({"kind": "folders", "checkpoint": str(tmp_path)}, "no config.json"),
        ({"kind": "files", "checkpoint": str(tmp_path / "no.gguf")}, "no file or folder at"),
        ({"kind": "folders", "weights": "them"}, "allowed: awq"),
        ({"kind": "folders", "weights": "awq", "checkpoint": "x"}, "two ways to say the same"),
    ):
        with pytest.raises(UserError, match=message):
            foreign_plan(them=backend)
