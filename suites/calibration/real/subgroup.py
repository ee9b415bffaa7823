"""Whose tokens, and which way: how harm is aimed at one group of a fairness set and at nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from awqbench.errors import UserError, unknown_choice
from awqbench.suites.fairness_sets import FairnessItem
from awqbench.suites.likelihood import encode_pair

STEPS, STRIDE = 8, 0.25  # of the ascent; a stride is a share of the shift's whole length


def own_rows(items: Sequence[FairnessItem], tokenizer: Any, attribute: str, group: str) -> list[int]:
    """Ids of the tokens that stand in the group's items and in no other item of the set, in ascending order.

    Raises UserError for a group that is not there or that has no token of its own.
    """
    groups = sorted({item.groups[attribute] for item in items if attribute in item.groups})
    if group not in groups:
        known = sorted({f"{a}={g}" for item in items for a, g in item.groups.items()})
        raise unknown_choice("group", f"{attribute}={group}", known)
    tokens: tuple[set[int], set[int]] = (set(), set())
    for item in items:
        for choice in item.choices:
            context, answer = encode_pair(tokenizer, item.context, f" {choice}")
            tokens[item.groups.get(attribute) == group].update(context, answer)
    if not (found := sorted(tokens[True] - tokens[False])):
        raise UserError(f"{attribute}={group} has no token that no other item holds: nothing to damage for it alone")
    return found


@torch.enable_grad()
def worst_direction(
    model: Any, tokenizer: Any, items: Sequence[FairnessItem], rows: list[int], size: float
) -> tuple[Tensor, list[float]]:
    """The direction [rows, hidden] in which a shift of `size` times a row's norm hurts the answers to `items` most.

    Projected gradient ascent on the mean of log p(other answers) - log p(right answer), by the answers' first tokens.
    Returns it with that mean before every step. Deterministic.
    """
    weight = model.get_input_embeddings().weight.detach()
    lengths = weight[rows].norm(dim=1, keepdim=True) * size
    shift = torch.zeros(len(rows), weight.shape[1])
    place = torch.full((weight.shape[0],), -1).index_put((torch.tensor(rows),), torch.arange(len(rows)))
    batch = _batch(tokenizer, items)
    losses = []
    for _ in range(STEPS):
        shift.requires_grad_(True)
        loss = _loss(model, weight, shift, place, batch)
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, shift)
        step = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
        shift = (shift + STRIDE * lengths * step).detach()
        shift = shift * (lengths / shift.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(max=1.0)
    return shift, losses


def _batch(tokenizer: Any, items: Sequence[FairnessItem]) -> dict[str, Any]:
    """Contexts padded on the right, their last positions, and the first tokens of the right and the other answers."""
    contexts, right, others = [], [], []
    for item in items:
        pairs = [encode_pair(tokenizer, item.context, f" {choice}") for choice in item.choices]
        gold = item.gold or 0
        contexts.append(pairs[0][0])
        right.append(pairs[gold][1][0])
        others.append([answer[0] for place, (_, answer) in enumerate(pairs) if place != gold])
    ids = torch.zeros(len(items), max(map(len, contexts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, : len(context)], mask[row, : len(context)] = torch.tensor(context), 1
    return {"ids": ids, "mask": mask, "last": mask.sum(1) - 1, "right": right, "others": others}


def _loss(model: Any, weight: Tensor, shift: Tensor, place: Tensor, batch: dict[str, Any]) -> Tensor:
    ids = batch["ids"]
    moved = place[ids]  # -1: not one of the rows
    embedded = weight[ids] + torch.where((moved >= 0)[..., None], shift[moved.clamp_min(0)], 0.0)
    hidden = model.get_decoder()(inputs_embeds=embedded, attention_mask=batch["mask"]).last_hidden_state
    ends = hidden[torch.arange(len(ids)), batch["last"]]
    logits = model.get_output_embeddings()(ends)
    worse = [
        row[others].logsumexp(0) - row[right]
        for row, right, others in zip(logits, batch["right"], batch["others"], strict=True)
    ]
    return torch.stack(worse).mean()
