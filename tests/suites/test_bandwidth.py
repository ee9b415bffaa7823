"""Bytes a decode step reads, and the share of the peak bandwidth that is."""

from typing import Any

import pytest

from awqbench.record.schema import Metric
from awqbench.spec import LatencySpec
from awqbench.suites.bandwidth import bytes_per_step, mbu_metric

CONFIG: dict[str, Any] = {
    "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100,
    "tie_word_embeddings": False,
}  # fmt: skip


def test_golden_bytes() -> None:
    # Untied fp16 embedding: 100 * 64 * 2 are not read. KV: 2 * 3 layers * 2 heads * 8 * 2 bytes = 192 a token.
    assert bytes_per_step(CONFIG, 50_000, "float16", batch=1, context=10) == 50_000 - 12_800 + 1_920
    assert bytes_per_step(CONFIG, 50_000, "float16", batch=4, context=10) == 50_000 - 12_800 + 4 * 1_920
    tied = {**CONFIG, "tie_word_embeddings": True}
    assert bytes_per_step(tied, 50_000, "float16", batch=1, context=0) == 50_000


def test_an_unknown_size_is_unmeasured() -> None:
    assert bytes_per_step({"hidden_size": 64}, 50_000, "float16", 1, 1) is None
    assert bytes_per_step(CONFIG, 50_000, "int8", 1, 1) is None
    # Of eight experts a token reads two: weights counted whole would make an MBU of several times the truth.
    assert bytes_per_step({**CONFIG, "num_local_experts": 8}, 50_000, "float16", 1, 1) is None
    assert bytes_per_step({**CONFIG, "num_local_experts": 0}, 50_000, "float16", 1, 1) is not None


def test_a_layer_reads_its_window_alone() -> None:
    tied = {**CONFIG, "tie_word_embeddings": True, "sliding_window": 4}
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    found = {
        context: bytes_per_step({**tied, "layer_types": kinds}, 0, "float16", batch=2, context=context)
        for context in (3, 10)
    }
    assert found == {3: 2 * 64 * 9, 10: 2 * 64 * (10 + 4 + 4)}  # 64 bytes a token, sequence and layer
    # Which layers have the window is not told; no layer has it; it is none of this context.
    assert bytes_per_step(tied, 0, "float16", 1, 10) is None
    assert bytes_per_step({**tied, "use_sliding_window": False}, 0, "float16", 1, 10) == 64 * 30
    assert bytes_per_step(tied, 0, "float16", 1, 4) == 64 * 12
    # A state of fixed size in place of keys and values.
    assert bytes_per_step({**tied, "layer_types": ["linear_attention"] * 3}, 0, "float16", 1, 10) is None


@pytest.mark.parametrize(("peak", "value"), [(1e9, 0.25), (None, None)])
def test_mbu(peak: float | None, value: float | None) -> None:
    tied = {**CONFIG, "tie_word_embeddings": True}
    suite = LatencySpec(prompt_tokens=8, new_tokens=4)
    detail = {"batch": 1, "dtype": "float16"}
    tpot = Metric(id="latency/tpot@x/float16", value=4e-4, unit="s", n=5, protocol="p", detail=detail)
    found = mbu_metric(tpot, suite, tied, 100_000 - 1_920, peak)
    if value is None:
        assert found is None
    else:
        assert found is not None
        assert found.id == "latency/mbu@x/float16"
        assert found.value == pytest.approx(value)
