"""The latency suite against a worker with a scripted clock: figures, ids, intervals and refusals."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.backends.base import Timing
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.spec import LatencySpec, RunSpec
from awqbench.suites import latency
from awqbench.suites.base import Context, Measurement
from awqbench.suites.footprint import weight_files
from awqbench.suites.latency import measure, prompts, summarize

SPECIAL = {0, 1, 2, 19}


class ScriptedWorker:
    """Answers `time` with ttft = batch * 0.5 s and gaps of 1, 2, 3 ... ms, the whole slower by 10 % a repeat."""

    def __init__(self, **overrides: Any) -> None:
        self.description: dict[str, Any] = {
            "vocab_size": 24, "max_positions": 64, "dtype": "torch.float32", "device": "cpu",
            "weight_bytes": 1000, "load_s": 0.25, **overrides,
        }  # fmt: skip
        self.asked: list[tuple[list[list[int]], int]] = []
        self.scale: dict[int, float] = {}

    def offers(self, capability: str) -> bool:
        return True

    def time(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        self.asked.append(([list(p) for p in prompts], new_tokens))
        batch = len(prompts)
        slower = self.scale[batch] = self.scale.get(batch, 1 / 1.1) * 1.1
        return Timing(0.5 * batch * slower, [0.001 * (i + 1) * slower for i in range(new_tokens - 1)])

    def memory(self) -> dict[str, int]:
        return {"host_peak": 5000, "host_now": 4000}


def run(tmp_path: Path, worker: Any = None, share: float = 1.0, **suite: Any) -> Measurement:
    """Measure with a 20-id tokenizer whose ids 0, 1, 2 and 19 are special."""
    table = LatencySpec(**{"prompt_tokens": 8, "new_tokens": 4, "warmup": 0, "repeats": 3, **suite})
    context = Context(
        RunSpec(suites={"latency": table}), table, worker or ScriptedWorker(), tmp_path, share=share, weights=tmp_path
    )
    tokenizer = SimpleNamespace(all_special_ids=[0, 1, 2], get_added_vocab=lambda: {"<x>": 19})
    context.__dict__["tokenizer"] = type("T", (SimpleNamespace,), {"__len__": lambda self: 20})(**vars(tokenizer))
    return measure(context)


def values(measurement: Measurement) -> dict[str, float | None]:
    return {metric.id: metric.value for metric in measurement.metrics}


def test_golden_figures(tmp_path: Path) -> None:
    found = values(run(tmp_path, batch_sizes=[1, 4]))
    # Repeats at 1, 1.1 and 1.21 times: medians are at 1.1.
    assert found["latency/ttft@batch=1,prompt=8/float32"] == pytest.approx(0.55)
    assert found["latency/ttft@batch=4,prompt=8/float32"] == pytest.approx(2.2)
    assert found["latency/tpot@batch=1,prompt=8,new=4/float32"] == pytest.approx(0.0022)
    assert found["latency/decode-throughput@batch=1,prompt=8,new=4/float32"] == pytest.approx(1 / 0.0022)
    assert found["latency/decode-throughput@batch=4,prompt=8,new=4/float32"] == pytest.approx(4 / 0.0022)
    # Pooled gaps in ms: 1 2 3, 1.1 2.2 3.3, 1.21 2.42 3.63: the median of the nine is 2.2.
    assert found["latency/itl@batch=1,prompt=8,new=4/float32"] == pytest.approx(0.0022)
    assert found["latency/load/float32"] == 0.25
    assert found["memory/weights/float32"] == 1000
    assert found["memory/host-peak/float32"] == 5000
    assert not any(name.startswith("memory/device-peak") for name in found)
    assert not any("mbu" in name for name in found)


def test_utilization_is_of_all_gpus_that_read_and_of_none_where_weights_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"num_attention_heads": 1, "hidden_size": 2, "num_hidden_layers": 1}  # 16 bytes a token in float32
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(latency, "peak_bandwidth", lambda: 1e6)
    name = "latency/mbu@batch=1,prompt=8,new=4/float32"
    found = {
        gpus: values(run(tmp_path, ScriptedWorker(device="cuda", tensor_parallel=gpus), batch_sizes=[1]))[name]
        for gpus in (1, 2)
    }
    assert found[1] == pytest.approx((1000 + 16 * 10) / (0.0022 * 1e6))
    assert found[2] == pytest.approx(found[1] / 2)
    hidden = values(run(tmp_path, ScriptedWorker(device="cuda", weight_bytes=None), batch_sizes=[1]))
    assert name not in hidden
    monkeypatch.setattr(latency, "peak_bandwidth", lambda: None)
    assert name not in values(run(tmp_path, ScriptedWorker(device="cuda", tensor_parallel=2), batch_sizes=[1]))


def test_items_reproduce_the_values(tmp_path: Path) -> None:
    measurement = run(tmp_path, repeats=4, new_tokens=6)
    items = measurement.items
    for metric in measurement.metrics:
        rows = items[items["metric"] == metric.id]
        if metric.pairing == "none":
            assert rows.empty
            continue
        assert metric.pairing == "ratio-of-medians"
        assert len(rows) == metric.n
        assert rows["score"].median() == metric.value
        assert rows["item_id"].is_unique
        assert rows["cluster"].nunique() == 4
        assert metric.ci_low is not None
        assert metric.value is not None
        assert metric.ci_high is not None
        assert metric.ci_low <= metric.value <= metric.ci_high
        assert metric.higher_is_better is ("throughput" in metric.id)


def test_prompts_hold_no_special_id_and_do_not_depend_on_the_backend(tmp_path: Path) -> None:
    one, other = ScriptedWorker(), ScriptedWorker(weight_bytes=5, dtype="float32")
    run(tmp_path, one, warmup=1)
    run(tmp_path, other, warmup=1)
    assert one.asked == other.asked
    drawn = [prompt for asked, _ in one.asked for prompt in asked]
    assert {i for prompt in drawn for i in prompt}.isdisjoint(SPECIAL)
    assert {i for prompt in drawn for i in prompt} <= set(range(20))
    assert len({tuple(prompt) for prompt in drawn}) == len(drawn), "a prefix cache would answer a repeated prompt"


def test_batch_sizes_take_turns_after_the_warm_up(tmp_path: Path) -> None:
    worker = ScriptedWorker()
    run(tmp_path, worker, batch_sizes=[1, 4], warmup=1, repeats=2)
    assert [len(asked) for asked, _ in worker.asked] == [1, 4] * 3


def test_an_engine_that_computes_in_another_type_is_held_beside_the_others(tmp_path: Path) -> None:
    other = run(tmp_path, worker=ScriptedWorker(dtype="float16")).metrics
    assert [m.id for m in other] == [m.id for m in run(tmp_path).metrics]
    timed = next(m for m in other if m.id.startswith("latency/itl"))
    assert timed.detail["dtype"] == "float16"
    assert timed.protocol.endswith("this engine computes in float16")


def test_warm_up_is_not_in_the_figures(tmp_path: Path) -> None:
    measurement = run(tmp_path, batch_sizes=[1], warmup=2, repeats=2)
    ttft = measurement.items[measurement.items["metric"] == "latency/ttft@batch=1,prompt=8/float32"]
    assert ttft["score"].tolist() == pytest.approx([0.5 * 1.1**2, 0.5 * 1.1**3])


def test_the_noise_floor_measures_its_share_of_the_repeats(tmp_path: Path) -> None:
    whole, half = run(tmp_path, repeats=6), run(tmp_path, repeats=6, share=0.5)
    assert [m.id for m in whole.metrics] == [m.id for m in half.metrics]
    assert [m.detail["repeats"] for m in half.metrics if m.pairing != "none"] == [3] * 8


def test_one_repeat_has_no_interval(tmp_path: Path) -> None:
    (metric, *_) = run(tmp_path, repeats=2, share=0.5).metrics
    assert metric.n == 1
    assert metric.ci_low is None
    assert metric.ci_high is None


@pytest.mark.parametrize(
    ("count", "given_tails"), [(9, set()), (10, {"p90"}), (20, {"p90", "p95"}), (100, {"p90", "p95", "p99"})]
)
def test_tails_only_where_samples_bear_them(count: int, given_tails: set[str]) -> None:
    spread = summarize(np.arange(1.0, count + 1)[:, None])["spread"]
    assert {name for name in ("p90", "p95", "p99") if spread[name] is not None} == given_tails


def test_golden_summary() -> None:
    found = summarize(np.array([[1.0, 2.0], [4.0, 9.0]]))
    assert found["median"] == 3.0
    # Distances to 3: 2 1 1 6.
    assert found["spread"]["mad"] == 1.5
    # Resampling two repeats gives the medians 1.5, 3, 3 and 6.5: the standard deviation of their logarithms is 0.521.
    # Two clusters spread sqrt(2) times as much, and t of 97.5 % with one degree of freedom is 12.71.
    reach = 12.71 * math.sqrt(2) * 0.521
    assert math.log(found["low"] / 3) == pytest.approx(-reach, rel=0.03)
    assert math.log(found["high"] / 3) == pytest.approx(reach, rel=0.03)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=12), st.floats(0.1, 10))
def test_the_interval_holds_the_median_and_scales_with_the_unit(seconds: list[float], factor: float) -> None:
    samples = np.array(seconds)[:, None]
    found, scaled = summarize(samples), summarize(samples * factor)
    assert found["low"] <= found["median"] <= found["high"]
    assert (scaled["low"], scaled["high"]) == pytest.approx((found["low"] * factor, found["high"] * factor))


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_prompts_are_seeded(batch: int, length: int, seed: int) -> None:
    drawn = prompts(range(5, 25), batch, length, [seed])
    assert drawn == prompts(range(5, 25), batch, length, [seed])
    assert np.shape(drawn) == (batch, length)
    assert all(type(i) is int and 5 <= i < 25 for prompt in drawn for i in prompt)


def test_too_long_for_the_model_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"60 \+ new_tokens 5 = 65 exceed the model's 64 positions"):
        run(tmp_path, prompt_tokens=60, new_tokens=5)
    run(tmp_path, prompt_tokens=60, new_tokens=4, repeats=2, batch_sizes=[1])


@pytest.mark.parametrize(
    ("timing", "said"),
    [
        (Timing(0.1, [0.1, 0.1]), "timed 3 of 4 tokens at batch size 1"),
        (Timing(float("nan"), [0.1] * 3), "not a positive number"),
        (Timing(0.1, [0.1, 0.0, 0.1]), "not a positive number"),
    ],
)
def test_times_that_cannot_be_true_are_refused(tmp_path: Path, timing: Timing, said: str) -> None:
    worker = ScriptedWorker()
    worker.time = lambda prompts, new_tokens: timing  # type: ignore[method-assign]
    with pytest.raises(InvalidMeasurement, match=said):
        run(tmp_path, worker)


def test_what_decoded_a_batch_otherwise_is_noted(tmp_path: Path) -> None:
    worker = ScriptedWorker()
    timed = worker.time
    said = "transformers: 2 sequences, and the native step takes 1"
    worker.time = lambda prompts, new_tokens: replace(  # type: ignore[method-assign]
        timed(prompts, new_tokens), otherwise=said if len(prompts) > 1 else None
    )
    assert run(tmp_path, worker, batch_sizes=[1, 2]).notes == [f"at batch size 2 tokens were decoded by {said}"]


def test_weights_that_a_folder_holds_twice_count_once(tmp_path: Path) -> None:
    for name in ("consolidated", "model-00001-of-00002", "model-00002-of-00002"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [file.stem for file in weight_files(tmp_path)] == ["model-00001-of-00002", "model-00002-of-00002"]


def test_checkpoint_size_is_of_the_weight_files_and_tells_their_types(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "__metadata__": {},
            "a": {"dtype": "F32", "data_offsets": [0, 8]},
            "b": {"dtype": "I32", "data_offsets": [8, 12]},
        }
    ).encode()
    shard = struct.pack("<Q", len(header)) + header + bytes(12)
    (tmp_path / "model-00001.safetensors").write_bytes(shard)
    (tmp_path / "model-00002.safetensors").write_bytes(shard)
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(99))
    (tmp_path / "tokenizer.json").write_text("{}")
    (size,) = [metric for metric in run(tmp_path).metrics if metric.id == "size/checkpoint"]
    assert size.value == 2 * len(shard)
    assert size.detail == {"files": 2, "bytes_by_dtype": {"F32": 16, "I32": 8}}
