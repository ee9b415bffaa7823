"""llama.cpp's parameter structures as C lays them out, with the defaults that prove it.

xllamacpp brings the library but no structures; llama-cpp-python brings both, and its own are used with it. The fields
are those of llama.h, version 0.5.0, and one more that this xllamacpp has.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_float, c_int32, c_size_t, c_uint32, c_void_p
from typing import Any

WRITTEN_FOR = "llama.cpp 0.6.0-dev as in xllamacpp 2026.10.11549"


class ModelParams(ctypes.Structure):
    """`llama_model_params`; enumerations are C ints."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        # Not in 0.5.0: 8 bytes that 0.6.0-dev writes as zero and that are left as they are.
        ("unnamed", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(ctypes.Structure):
    """`llama_batch`: tokens, their positions and sequences, and which of them give logits."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


# What llama.cpp puts into each field by itself; fields that are not named are zero.
MODEL_DEFAULTS: dict[str, Any] = {
    "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "use_extra_bufts": True,
}  # fmt: skip
CONTEXT_DEFAULTS: dict[str, Any] = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max_per_seq": 1, "n_threads": 4,
    "n_threads_batch": 4, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0,
    "defrag_thold": -1.0, "type_k": 1, "type_v": 1, "offload_kqv": True, "no_perf": True, "op_offload": True,
    "swa_full": True,
}  # fmt: skip
# The same of llama-cpp-python, whose structures follow its own llama.cpp: what has stayed as it is for years.
CONTEXT_ANCHORS: dict[str, Any] = {
    name: CONTEXT_DEFAULTS[name]
    for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "type_k", "type_v", "offload_kqv")
}
# What is set: a provider's own structures must have these.
MODEL_FIELDS = ("n_gpu_layers", "main_gpu", "split_mode", "load_mode")
CONTEXT_FIELDS = (
    "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "n_outputs_max_per_seq", "n_threads",
    "n_threads_batch", "flash_attn_type", "type_k", "type_v", "offload_kqv", "op_offload", "kv_unified",
)  # fmt: skip
