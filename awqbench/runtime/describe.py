"""A Llama-like transformers model as the numbers and modules that a step of ours takes, or why it can't be one.

What is found here by a module's name or shape is a guess until `prove` has compared the results.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from awqbench.formats.settings import positions
from awqbench.ops.linear import QuantizedLinear
from awqbench.runtime import probe
from awqbench.runtime.probe import NotDescribed

Norm = tuple[Tensor, float] | None
# Raises NotDescribed for a linear, called so, that a step does not multiply by.
Takes = Callable[[Any, str], None]


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One decoder layer. `qkv` has one linear or three, `gate_up` one or two; `angles` say which of the rotary module's
    tables turn its heads."""

    qkv: tuple[Any, ...]
    out: Any
    gate_up: tuple[Any, ...]
    down: Any
    norms: dict[str, Norm]
    angles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """All that a step reads. Layers differ in their weights and angles, and in how far they see."""

    layers: list[LayerParts]
    embedding: Any
    head: Any
    last: Norm
    rotary: Any  # the model's own module
    sizes: dict[str, int]
    factors: dict[str, float]
    activation: str
    limit: int  # positions for which the model was made
    sight: int  # positions up to which every layer sees all that went before


def describe(model: Any, takes: Takes) -> Description:
    """Describe a causal LM with linears that `takes` lets pass. Raises NotDescribed."""
    config = model.config.get_text_config()
    base = getattr(model, model.base_model_prefix, None)
    stack, embedding, head = getattr(base, "layers", None), model.get_input_embeddings(), model.get_output_embeddings()
    if not stack or head is None:
        raise NotDescribed(f"{type(base).__name__} is no stack of layers with a language model head")
    rotary = getattr(base, "rotary_emb", None)
    if rotary is None:
        raise NotDescribed(f"{type(base).__name__} has no rotary embedding of its own")
    by_kind = "layer_type" in inspect.signature(rotary.forward).parameters
    layers, sizes, factors, functions = [], [], [], []
    for number, layer in enumerate(stack):
        angles = (str(config.layer_types[number]),) if by_kind else ()
        parts, size, factor, function = _layer(layer, f"layer {number}", takes, angles)
        layers.append(parts)
        sizes.append(size)
        factors.append(factor)
        functions.append(function)
    for what in (sizes, factors, functions):
        if any(other != what[0] for other in what):
            raise NotDescribed("its layers differ in more than their weights")
    limit = lengths(config)[0]
    turned = {probe.check_rotary(rotary, limit, angles) for angles in {parts.angles for parts in layers}}
    if len(turned) > 1:
        raise NotDescribed("its layers turn different shares of a head")
    vocabulary, hidden = embedding.weight.shape
    found = Description(
        layers=layers,
        embedding=embedding,
        head=head,
        last=probe.norm_weight(getattr(base, "norm", None), "the last norm"),
        rotary=rotary,
        sizes={
            **sizes[0],
            "hidden": hidden,
            "vocabulary": int(getattr(head, "out_features", vocabulary)),
            "rotary": turned.pop(),
        },
        factors={**factors[0], **probe.ends(model, stack[0], embedding, head)},
        activation=functions[0],
        limit=limit,
        sight=full_sight(config),
    )
    _refuse_unknown(model, {id(module) for module in _modules(found, base, embedding, head)})
    return found


def _layer(
    layer: Any, name: str, takes: Takes, angles: tuple[str, ...]
) -> tuple[LayerParts, dict[str, int], dict[str, float], str]:
    attention: Any = getattr(layer, "self_attn", None)
    mlp = getattr(layer, "mlp", None)
    qkv = _linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj"), f"{name}'s attention", takes)
    (out,) = _linears(attention, ("o_proj",), (), f"{name}'s attention", takes)
    gate_up = _linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj"), f"{name}'s mlp", takes)
    (down,) = _linears(mlp, ("down_proj",), (), f"{name}'s mlp", takes)
    if "position_ids" in inspect.signature(attention.forward).parameters:
        # Ministral 3 scales queries from some thousand positions on: no trial on a few tokens would show it.
        raise NotDescribed(f"{name}'s attention ({type(attention).__name__}) reads positions itself")
    function = next((f for key in ("act_fn", "activation_fn") if (f := getattr(mlp, key, None)) is not None), None)
    norms: dict[str, Norm] = {
        **{role: probe.norm_weight(norm, f"{name}'s {role}") for role, norm in _norms(layer).items()},
        "query": _head_norm(attention, "q_norm", name),
        "key": _head_norm(attention, "k_norm", name),
    }
    size = int(getattr(attention, "head_dim", 0) or 0)
    queries, scale = int(out.in_features), getattr(attention, "scaling", None)
    keys = (int(qkv[0].out_features) - queries) // 2 if len(qkv) == 1 else int(qkv[1].out_features)
    inner = int(down.in_features)
    if not size or not isinstance(scale, float | int) or queries % size or keys % size or keys <= 0 or queries % keys:
        raise NotDescribed(f"{name}'s attention ({type(attention).__name__}) does not say its heads and scale")
    if inner % 8 or any(int(linear.out_features) not in (inner, 2 * inner) for linear in gate_up):
        raise NotDescribed(f"{name}'s mlp has {inner} inner numbers, gated by {gate_up[0].out_features}")
    sizes = {"heads": queries // size, "key_heads": keys // size, "head_size": size, "inner": inner}
    factors = {
        "score_scale": float(scale),
        "score_cap": float(getattr(attention, "attn_logit_softcapping", None) or 0),
        "residual_scale": float(getattr(layer, "residual_multiplier", 1.0)),
    }
    return LayerParts(qkv, out, gate_up, down, norms, angles), sizes, factors, probe.activation(function)


def _norms(layer: Any) -> dict[str, Any]:
    """The norms around attention and mlp by their role. Which of three arrangements a layer has shows in its names."""
    found = {name: module for name in _LAYER_NORMS if (module := getattr(layer, name, None)) is not None}
    first, second, third, fourth = (found.get(name) for name in _LAYER_NORMS)
    if third is not None:  # around both branches
        roles = {"before_attention": first, "after_attention": second, "before_mlp": third, "after_mlp": fourth}
    elif fourth is not None:  # behind both
        roles = {"after_attention": second, "after_mlp": fourth}
    else:
        roles = {"before_attention": first, "before_mlp": second}
    return {role: module for role, module in roles.items() if module is not None}


_LAYER_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def _head_norm(attention: Any, name: str, layer: str) -> Norm:
    module = getattr(attention, name, None)
    return None if module is None else probe.norm_weight(module, f"{layer}'s {name}")


def _linears(owner: Any, fused: tuple[str, ...], apart: tuple[str, ...], name: str, takes: Takes) -> tuple[Any, ...]:
    for names in (fused, apart):
        found = tuple(getattr(owner, key, None) for key in names)
        if names and all(linear is not None for linear in found):
            for key, linear in zip(names, found, strict=True):
                takes(linear, f"{name} ({key})")
            return found
    raise NotDescribed(f"{name} ({type(owner).__name__}) has no {' or '.join(filter(None, (fused[0], *apart[:1])))}")


def full_sight(config: Any) -> int:
    """Positions up to which every layer sees all that went before: the shortest window or chunk, if there is one."""
    return min(lengths(config))


def lengths(config: Any) -> list[int]:
    """How many positions a model was made for, and how many its windows and chunks have."""
    found = [positions(config)]
    for key, value in config.to_dict().items():
        # "max_window_layers" and "sliding_window_pattern" count layers.
        length = ("window" in key or "chunk" in key) and not key.endswith(("_layers", "_pattern"))
        if length and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found.append(value)
    return found


def _modules(found: Description, base: Any, embedding: nn.Module, head: nn.Module) -> Iterator[nn.Module]:
    """The modules that the description was read from."""
    yield from (embedding, head, base.norm)
    for layer, parts in zip(base.layers, found.layers, strict=True):
        yield from (*parts.qkv, parts.out, *parts.gate_up, parts.down, *_norms(layer).values())
        yield from (norm for key in ("q_norm", "k_norm") if (norm := getattr(layer.self_attn, key, None)) is not None)


def _refuse_unknown(model: nn.Module, known: set[int]) -> None:
    """Raise NotDescribed for a parameter, or packed weight, that the step would leave out."""
    for name, module in model.named_modules():
        own = [*module.named_parameters(recurse=False)]
        if id(module) not in known and (own or isinstance(module, QuantizedLinear)):
            raise NotDescribed(f"{name} ({type(module).__name__}) is not known to it")
