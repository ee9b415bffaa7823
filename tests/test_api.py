"""What running again makes of a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awqbench import api
from awqbench.fingerprint import model_hash
from awqbench.plan import make_plan
from awqbench.record.attribution import Amount, Attribution, Stage
from awqbench.record.files import write_model
from awqbench.record.layout import CONCLUSIONS, RunDirectory
from awqbench.record.reader import load_run
from awqbench.report.render import OUTPUTS
from awqbench.sources.models import resolve_model
from awqbench.spec import parse_spec

SPEC: dict[str, Any] = {
    "backends": {"reference": {"kind": "reference"}},
    "noise_floor": {"enabled": False},
    "suites": {"perplexity": {"text": "pydoc-topics"}},
}


def test_what_an_earlier_run_concluded_does_not_lie_there_while_it_is_measured_again(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops it would read the old verdict as the new one. Where nothing is to be measured, nothing is lost."""
    monkeypatch.setattr(api, "rescore", load_run)
    spec = parse_spec({**SPEC, "model": {"source": str(tiny_llama)}})
    run = RunDirectory(tmp_path / "run")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for left, there in (([], True), (["a job"], False)):
        monkeypatch.setattr(api, "pending", lambda *_, left=left, **__: left)
        monkeypatch.setattr(api, "execute", lambda *_: None)
        api.run(spec, run.root)
        for name in CONCLUSIONS:
            (run.root / name).write_text("earlier")
        monkeypatch.setattr(api, "execute", stop)
        with pytest.raises(KeyboardInterrupt):
            api.run(spec, run.root)
        assert {name for name in CONCLUSIONS if (run.root / name).exists()} == (set(CONCLUSIONS) if there else set())


def test_conclusions_are_what_is_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert {run.comparison.name, run.verdict.name, *OUTPUTS} == set(CONCLUSIONS)


def test_what_jobs_of_an_earlier_spec_left_goes(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes of log-probabilities each time, where a cell fails and the spec is changed to mend it."""
    monkeypatch.setattr(api, "execute", lambda *_: None)  # all jobs stay undone
    monkeypatch.setattr(api, "rescore", load_run)
    run = RunDirectory(tmp_path / "run")
    backends = {**SPEC["backends"], "again": {"kind": "transformers"}}
    suites = {"divergence": {"text": "pydoc-topics"}}
    spec = parse_spec({**SPEC, "backends": backends, "suites": suites, "model": {"source": str(tiny_llama)}})
    plan = make_plan(spec, resolve_model(str(tiny_llama)), model_hash(tiny_llama))
    own = run.scratch(plan.job("logprobs/divergence").key)
    api.run(spec, run.root)
    for folder in (own, run.scratch("another")):
        folder.mkdir(parents=True)
        (folder / "prefill-00000.f32").write_text("")
    api.run(spec, run.root)
    assert list(own.parent.iterdir()) == [own]
    assert (own / "prefill-00000.f32").exists()
    run.drop_scratch()
    assert not own.parent.exists()


def test_of_an_earlier_checkpoint_nothing_is_shown(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend `given` once was made, now it is a folder; what `now` says is of that folder."""
    monkeypatch.setattr(api, "execute", lambda *_: None)
    monkeypatch.setattr(api, "rescore", load_run)
    run = RunDirectory(tmp_path / "run")
    backends = {**SPEC["backends"], "given": {"kind": "transformers", "checkpoint": str(tiny_llama)}}
    model = {"source": str(tiny_llama)}
    spec = parse_spec({**SPEC, "backends": backends, "model": model, "parity": {"enabled": False}})
    api.run(spec, run.root)
    for name in ("given", "gone"):
        run.checkpoint(name).mkdir(parents=True)
        (run.checkpoint(name) / "quantize.json").write_text("{}")
    nothing = Amount(value=0, ci_low=0, ci_high=0)
    stage = Stage(units=1, clusters=1, tokens=1, damage=nothing)
    for name, digest in {"given": "earlier", "now": model_hash(tiny_llama)}.items():
        of = Attribution(
            awqbench_version="", created="", checkpoint="", checkpoint_hash=digest, reference="", reference_hash="",
            measure={}, by="linear", points=1, seed=0, estimating=stage, confirming=stage, explained=1,
            remainder=nothing, scaled_groups=0, linears=[], blocks=[], kinds=[], steps=[], agreement={}, keep=[],
            seconds=0,
        )  # fmt: skip
        write_model(run.attributions / f"{name}.json", of)
    again = api.run(spec, run.root)
    assert again.quantization == {}
    assert list(again.attributions) == ["now"]
