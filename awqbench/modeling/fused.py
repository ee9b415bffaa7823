"""How transformers 5 stores a mixture of experts: all experts of a layer in two three-dimensional weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class FusedLayout:
    """How a fused experts module of transformers stores its weights.

    `gate_up_proj` [experts, 2 * inner, width] (`up_proj` [experts, inner, width] without gates) and `down_proj`
    [experts, width, inner], the last two dimensions swapped where `transposed`. Gate and up are two halves, or, where
    they aren't `concatenated`, take turns.
    """

    gated: bool
    biased: bool
    transposed: bool
    concatenated: bool

    @property
    def first(self) -> str:
        """The weight that reads the experts' input."""
        return "gate_up_proj" if self.gated else "up_proj"

    @property
    def readers(self) -> tuple[str, ...]:
        """The linears of an expert that it holds."""
        return ("gate_proj", "up_proj") if self.gated else ("up_proj",)

    def rows(self, count: int) -> dict[str, slice]:
        """Which of the first weight's `count` rows are whose."""
        if not self.gated:
            return {"up_proj": slice(None)}
        if self.concatenated:
            return {"gate_proj": slice(count // 2), "up_proj": slice(count // 2, None)}
        return {"gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2)}


def fused_layout(module: nn.Module) -> FusedLayout | None:
    """The layout of a fused experts module of transformers; None for other modules, and where it has more in it."""
    flags = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "has_post_expert_norm")
    if not all(hasattr(module, flag) for flag in flags) or module.has_post_expert_norm:
        return None
    layout = FusedLayout(*(bool(getattr(module, flag)) for flag in flags[:4]))
    if not layout.concatenated and common_gating(module):
        return None  # the common gating takes halves: it can't be what weights that take turns want
    names = [layout.first, "down_proj"]
    names += [f"{name}_bias" for name in names] if layout.biased else []
    found = dict(module.named_parameters())
    return layout if set(found) == set(names) and found["down_proj"].dim() == 3 else None


def common_gating(fused: nn.Module) -> bool:
    """Whether gate and up are joined in the common way, act(gate) * up."""
    return bool(type(fused)._apply_gate.__module__ == "transformers.integrations.moe")  # type: ignore[attr-defined]
