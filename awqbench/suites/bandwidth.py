"""Memory-bandwidth utilization (MBU): bytes a decode step must read, over its time times the peak bandwidth.

Decoding a small batch is bound by reading the weights, so MBU says how much of the device a kernel uses. Source: the
definition of Databricks, "LLM Inference Performance Engineering: Best Practices" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from awqbench.record.schema import Metric
from awqbench.spec import LatencySpec
from awqbench.telemetry.gpu import NvmlGpus

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Settings of models of which a step reads less than all weights (experts) or other than keys and values (latents).
_UNKNOWN = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "kv_lora_rank")


def bytes_per_step(config: Mapping[str, Any], weight_bytes: int, dtype: str, batch: int, context: int) -> int | None:
    """Bytes one decode step reads: the weights once, and each sequence's keys and values of `context` tokens.

    Of an input embedding that is not also the output layer a step reads a few rows, so it is left out, as is what lies
    outside a layer's window. `config` is the model's config.json; None when it lacks a size this needs, and for
    mixtures of experts, of which a step reads those that its tokens are sent to.
    """
    if any(config.get(name) for name in _UNKNOWN) or (seen := _seen(config, context)) is None:
        return None
    try:
        item = ITEM_BYTES[dtype]
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim") or hidden // heads
        kv_heads = config.get("num_key_value_heads") or heads
        unread = 0 if config.get("tie_word_embeddings", True) else config["vocab_size"] * hidden * item
    except KeyError:
        return None
    return int(weight_bytes - unread + 2 * kv_heads * head_dim * item * batch * seen)


def _seen(config: Mapping[str, Any], context: int) -> int | None:
    """Of `context` tokens, those that a layer sees, summed over all layers; None where it is not told."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    kinds = config.get("layer_types")
    if kinds is None:
        layers = config.get("num_hidden_layers")
        return None if layers is None or (window and window < context) else layers * context
    by_kind = {"full_attention": context, "sliding_attention": min(context, window) if window else None}
    seen = [tokens for kind in kinds if (tokens := by_kind.get(kind)) is not None]
    return sum(seen) if len(seen) == len(kinds) else None


def peak_bandwidth(nvml: Any = None) -> float | None:
    """Bytes/s of one GPU's memory from NVML's largest memory clock and bus width; None unless all GPUs are alike."""
    gpus = NvmlGpus(nvml)
    try:
        found = {gpu["memory_bandwidth"] for gpu in gpus.describe()}
    finally:
        gpus.close()
    return found.pop() if len(found) == 1 else None


def mbu_metric(
    tpot: Metric, suite: LatencySpec, config: Mapping[str, Any], weight_bytes: int, peak: float | None
) -> Metric | None:
    """MBU at one TPOT metric's batch size and median; None (unmeasured) where a size or the peak is unknown."""
    batch, dtype = tpot.detail["batch"], tpot.detail["dtype"]
    # Half of the new tokens stand in the cache during the average step.
    read = bytes_per_step(config, weight_bytes, dtype, batch, suite.prompt_tokens + suite.new_tokens // 2)
    if read is None or peak is None or not tpot.value:
        return None
    return Metric(
        id=tpot.id.replace("latency/tpot@", "latency/mbu@"),
        value=read / (tpot.value * peak),
        unit="fraction",
        n=tpot.n,
        protocol="weights and KV cache read per decode step over median time per output token x peak bandwidth (NVML)",
        higher_is_better=True,
        pairing="none",
        detail={"bytes_per_step": read, "peak_bytes_per_s": peak, "batch": batch, "dtype": dtype},
    )
