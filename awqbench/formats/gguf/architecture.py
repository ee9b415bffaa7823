"""What llama.cpp must know of an architecture beside its tensors, for the families it runs as `llama` and `qwen`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, get_tensor_name_map

from awqbench.errors import UserError, unknown_choice

_ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Architecture:
    """A model's config.json in llama.cpp's terms."""

    model_type: str
    arch: MODEL_ARCH
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocabulary: int
    epsilon: float
    rope: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Architecture:
        """Read config.json. Raises UserError for a family that this export does not know, or an unknown rope."""
        model_type = str(config.get("model_type"))
        if model_type not in _ARCHITECTURES:
            raise unknown_choice("architecture for GGUF", model_type, _ARCHITECTURES)
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            described = cls(
                model_type=model_type,
                arch=_ARCHITECTURES[model_type],
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                feed_forward=int(config["intermediate_size"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                context=int(config["max_position_embeddings"]),
                vocabulary=int(config["vocab_size"]),
                epsilon=float(config["rms_norm_eps"]),
                rope=_rope(config),
            )
        except KeyError as error:
            raise UserError(f"config.json does not say {error.args[0]}") from None
        _check_rope(described.rope)
        return described

    @property
    def arch_name(self) -> str:
        """The architecture's name in the file."""
        return str(MODEL_ARCH_NAMES[self.arch])

    def write(self, writer: GGUFWriter) -> None:
        """Add the sizes and the rotary embedding to the file's metadata."""
        writer.add_block_count(self.layers)
        writer.add_context_length(self.context)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.feed_forward)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_layer_norm_rms_eps(self.epsilon)
        writer.add_vocab_size(self.vocabulary)
        writer.add_rope_freq_base(float(self.rope["rope_theta"]))
        writer.add_rope_dimension_count(self.head_dim)
        if self.head_dim * self.heads != self.hidden or self.arch == MODEL_ARCH.QWEN3:
            writer.add_key_length(self.head_dim)
            writer.add_value_length(self.head_dim)
        kind = self.rope["rope_type"]
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(RopeScalingType(kind))
            writer.add_rope_scaling_factor(float(self.rope["factor"]))
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(self.rope["original_max_position_embeddings"]))

    def target(self, name: str) -> str | None:
        """The file's name of a Hugging Face tensor; None where llama.cpp knows no such tensor."""
        found: str | None = get_tensor_name_map(self.arch, self.layers).get_name(name, (".weight", ".bias"))
        return found

    def row_order(self, name: str) -> npt.NDArray[np.int64] | None:
        """The order of output rows that llama.cpp's rotary embedding wants of a linear; None: as they are.

        Hugging Face rotates the first half of a head's channels against the second, llama.cpp's `llama` rotates
        neighbours, so that channels i and i + d/2 of each query and key head come to lie side by side.
        """
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads}.get(name.rpartition(".")[2])
        if heads is None or self.arch != MODEL_ARCH.LLAMA:
            return None
        rows = np.arange(heads * self.head_dim)
        return rows.reshape(heads, 2, self.head_dim // 2).swapaxes(1, 2).reshape(-1)

    def rope_factors(self) -> npt.NDArray[np.float32] | None:
        """Divisors of the rotary frequencies for `llama3` scaling (Llama 3.1), float32 [head_dim / 2]; None else."""
        if self.rope["rope_type"] != "llama3":
            return None
        keys = ("rope_theta", "original_max_position_embeddings", "factor", "low_freq_factor", "high_freq_factor")
        theta, original, factor, low, high = (float(self.rope[key]) for key in keys)
        wavelength = 2 * math.pi * theta ** (np.arange(0, self.head_dim, 2) / self.head_dim)
        # 0 where a rotation is so slow that its frequency is divided, 1 where it stays, a straight line between.
        kept = np.clip((original / wavelength - low) / (high - low), 0, 1)
        return (1 / ((1 - kept) / factor + kept)).astype(np.float32)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary parameters, wherever transformers 4 or 5 put them."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    # As transformers has it for both kinds that need it.
    rope.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    return rope


# What each kind of scaling needs to say, and what llama.cpp does by itself, so that nothing else may be said.
_NEEDED = {
    "default": (), "linear": ("factor",), "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}  # fmt: skip
_BY_ITSELF: dict[str, Any] = {
    "attention_factor": None, "beta_fast": 32, "beta_slow": 1, "mscale": None, "mscale_all_dim": None, "truncate": True,
}  # fmt: skip


def _check_rope(rope: Mapping[str, Any]) -> None:
    """Raise UserError for a rotary embedding that the file cannot say."""
    kind = rope["rope_type"]
    if kind not in _NEEDED:
        raise unknown_choice("rope_type for GGUF", kind, _NEEDED)
    for key in _NEEDED[kind]:
        if rope.get(key) is None:
            raise UserError(f"config.json does not say {key} of its rotary embedding ({kind})")
    for key, usual in _BY_ITSELF.items() if kind == "yarn" else ():
        if rope.get(key) not in (None, usual):
            raise UserError(f"its rotary embedding has {key} {rope[key]}, which is not exported (allowed: {usual})")
