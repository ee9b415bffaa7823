"""One spec, five engines, the same items: the reference, ours, transformers, llama.cpp and a live llama.cpp server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from awqbench.record.reader import Run, load_run

pytestmark = [pytest.mark.slow, pytest.mark.demo, pytest.mark.timeout(900)]
Command = Callable[..., subprocess.CompletedProcess[str]]

# One thread: two that wait for each other on processors which other tests want took four times as long.
SPEC = """
threads = 1
[model]
source = "demo"
[quantize]
calibration = "pydoc-topics[:50%]"
samples = 1
seq_len = 64
format = "compressed-tensors"
[backends.reference]
kind = "reference"
[backends.awq]
kind = "awq"
[backends.awq-transformers]
kind = "transformers"
weights = "awq"
[backends.awq-llamacpp]
kind = "llamacpp"
weights = "awq"
[backends.server]
kind = "openai"
options = {{ base_url = "{url}", parity_base_url = "{url}" }}
[backends.elsewhere]
kind = "llamacpp"
weights = "awq"
python = "/no/such/python"
[noise_floor]
enabled = false
[parity]
text = "pydoc-topics[50%:]"
window = 48
windows = 1
decode_window = 6
decode_windows = 1
[suites.perplexity]
text = "pydoc-topics[50%:]"
window = 64
windows = 2
[suites.divergence]
text = "pydoc-topics[50%:]"
window = 48
windows = 1
decode_window = 6
decode_windows = 1
[suites.tasks]
limit = 6
[suites.latency]
backends = ["awq-llamacpp", "server"]
batch_sizes = [1]
prompt_tokens = 16
new_tokens = 4
repeats = 2
[[gates]]
metric = "perplexity/*"
margin = 0.5
unit = "relative"
candidates = ["awq", "awq-llamacpp"]
"""
MEASURED = {"awq", "awq-transformers", "awq-llamacpp", "server"}
HELD_TO_THE_MODEL = {"awq-llamacpp", "server", "elsewhere"}  # transformers runs the reference itself


@pytest.fixture(scope="module")
def server(
    serve_gguf: Callable[[Path], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """base_url of llama.cpp's own server on the unquantized demo model, in a process of its own."""
    from awqbench.errors import BackendUnavailable
    from awqbench.formats.gguf.export import export_gguf
    from awqbench.sources.models import resolve_model

    try:
        model = resolve_model("demo").path
    except BackendUnavailable as error:
        pytest.skip(str(error))
    file = tmp_path_factory.mktemp("server") / "model.gguf"
    export_gguf(model, file, kind="f16")
    with serve_gguf(file) as url:
        yield url


@pytest.fixture(scope="module")
def run(awqbench: Command, server: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, measured once."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "bench.toml").write_text(SPEC.format(url=server))
    done = awqbench("run", folder / "bench.toml", "--out", folder / "run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"]["overall"] in {"pass", "fail", "inconclusive"}
    assert {row["backend"] for row in told["parity"]} == HELD_TO_THE_MODEL
    return load_run(folder / "run")


def test_every_engine_measured_the_same_items(run: Run) -> None:
    items = run.items
    for suite in ("perplexity", "tasks"):
        rows = items[items["suite"] == suite]
        wanted = set(rows.loc[rows["backend"] == "reference", "item_id"])
        assert wanted
        for backend in MEASURED:
            assert set(rows.loc[rows["backend"] == backend, "item_id"]) == wanted, (suite, backend)


def test_the_same_integers_say_the_same_in_three_engines(run: Run) -> None:
    assert run.comparison is not None
    losses = {
        d.candidate: d.candidate_value
        for d in run.comparison.differences
        if d.baseline == "reference" and d.metric.endswith("prefill/kl")
    }
    assert losses["awq-transformers"] == pytest.approx(losses["awq"], rel=1e-3)
    # llama.cpp quantizes activations to 8 bits; what the weights lost is several times that.
    assert losses["awq"] is not None
    assert losses["awq-llamacpp"] == pytest.approx(losses["awq"], rel=0.2)


def test_engines_are_held_to_the_unquantized_model_first(run: Run) -> None:
    assert run.comparison is not None
    parity = {row.backend: row for row in run.comparison.parity}
    assert set(parity) == HELD_TO_THE_MODEL
    for name in HELD_TO_THE_MODEL - {"elsewhere"}:
        assert parity[name].status == "within", parity[name].reason
        assert parity[name].same_bos is True
    assert parity["elsewhere"].status == "unmeasured"


def test_what_an_engine_cannot_tell_is_said_not_invented(run: Run) -> None:
    cells = {(c.result.backend, c.result.suite): c.result for c in run.cells}
    served = cells["server", "divergence"]
    assert served.status == "ok"
    assert served.notes == ["the prefill path was not measured: no log-probabilities on it"]
    assert {metric.id.split("/")[2] for metric in served.metrics} == {"decode"}


def test_an_engine_that_is_missing_is_skipped_with_the_reason(run: Run) -> None:
    missing = [c.result for c in run.cells if c.result.backend == "elsewhere"]
    assert {result.status for result in missing} == {"skipped"}
    assert all("/no/such/python" in (result.reason or "") for result in missing)
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Engine parity" in report
    assert "/no/such/python" in report
