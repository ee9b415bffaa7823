"""A whole run: the reference and llama.cpp's real server on the same items, in one record."""

import json

import pytest

import awqbench

SPEC = """
threads = 1
[model]
source = "{model}"
device = "cpu"
[noise_floor]
enabled = false
[backends.reference]
kind = "reference"
[backends.served]
kind = "openai"
options = {{ base_url = "{url}", parity_base_url = "{url}" }}
[parity]
window = 32
windows = 2
decode_window = 8
[suites.perplexity]
text = "pydoc-topics"
window = 64
windows = 2
[suites.divergence]
text = "pydoc-topics"
window = 32
windows = 2
decode_window = 8
"""


@pytest.mark.slow
def test_a_server_beside_the_reference(byte_pair_llama, llamacpp_url, tmp_path):
    (tmp_path / "bench.toml").write_text(SPEC.format(model=byte_pair_llama, url=llamacpp_url))
    awqbench.run(tmp_path / "bench.toml", tmp_path / "run")

    def cell(backend, suite):
        return json.loads((tmp_path / "run" / "cells" / backend / suite / "result.json").read_text())

    ours, theirs = cell("reference", "perplexity"), cell("served", "perplexity")
    assert theirs["status"] == "ok"
    assert "load" not in theirs["seconds"]  # the server had loaded its weights before
    assert theirs["engine"]["server"]["asked"]["log-probabilities by id"] == "yes"
    assert abs(ours["metrics"][0]["value"] / theirs["metrics"][0]["value"] - 1) < 0.01
    divergence = cell("served", "divergence")
    assert divergence["notes"] == ["the prefill path was not measured: no log-probabilities on it"]
    assert {m["id"].rsplit("/", 2)[-2] for m in divergence["metrics"]} == {"decode"}
    [row] = json.loads((tmp_path / "run" / "comparison.json").read_text())["parity"]
    assert (row["engine"], row["status"]) == ("llama.cpp", "within")
    assert row["kl_decode"] < 1e-3
