"""Planted defects touch what they say and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from awqbench.errors import UserError
from awqbench.suites.fairness_sets import FairnessItem


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval().requires_grad_(False)


def changed(model: Any, folder: Path) -> set[str]:
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_one_layer_is_rounded_to_four_values_a_group(model: Any, tiny_llama: Path) -> None:
    import defects

    errors = defects.round_layer(model, 1, bits=2, group_size=32)
    assert {name.split(".")[2] for name in changed(model, tiny_llama)} == {"1"}
    assert len(errors) == 7
    assert min(errors.values()) > 0.1
    for name in errors:
        weight = model.get_submodule(name).weight
        assert max(len(group.unique()) for group in weight.reshape(-1, 32)) <= 4


def test_an_input_that_does_not_divide_has_one_group_a_row(model: Any) -> None:
    import defects

    defects.round_layer(model, 0, bits=2, group_size=96)
    assert all(len(row.unique()) <= 4 for row in model.model.layers[0].mlp.down_proj.weight)


def test_a_zeroed_head_adds_nothing(model: Any, tiny_llama: Path) -> None:
    """As if that head's values had been cut out before o_proj."""
    import defects

    ids, width = torch.arange(20)[None], model.config.head_dim
    attention = model.model.layers[1].self_attn

    def cut(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        values = inputs[0].clone()
        values[..., width : 2 * width] = 0
        return (values,)

    handle = attention.o_proj.register_forward_pre_hook(cut)
    expected = model(ids).logits
    handle.remove()
    share = defects.zero_head(model, 1, 1)
    torch.testing.assert_close(model(ids).logits, expected)
    assert changed(model, tiny_llama) == {"model.layers.1.self_attn.o_proj.weight"}
    assert 0 < share["share of o_proj's squared norm"] < 1


def test_moved_rows_are_read_otherwise_and_predicted_as_before(model: Any, tiny_llama: Path) -> None:
    import defects

    old = model.get_input_embeddings().weight[[3, 7]].clone()
    quiet, loud = torch.tensor([[1, 2, 4, 5]]), torch.tensor([[1, 2, 3, 5]])
    before = model(quiet).logits
    defects.shift_rows(model, [3, 7], defects.noise(model, [3, 7], seed=1), 0.5)
    moved = model.get_input_embeddings().weight[[3, 7]] - old
    torch.testing.assert_close(moved.norm(dim=1), 0.5 * old.norm(dim=1))
    assert torch.equal(model(quiet).logits, before)
    clean = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    assert not torch.equal(model(loud).logits, clean(loud).logits)
    assert changed(model, tiny_llama) == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("call", "said"), [("round_layer(model, 9)", "layer 9"), ("zero_head(model, 0, 99)", "head 99")]
)
def test_what_is_not_there_is_named(model: Any, call: str, said: str) -> None:
    import defects

    name, arguments = call.rstrip(")").split("(")
    numbers = [int(part) for part in arguments.split(",")[1:]]
    with pytest.raises(UserError, match=rf"no {said} \(allowed: 0 to "):
        getattr(defects, name)(model, *numbers)


def item(name: str, group: str, context: str) -> FairnessItem:
    return FairnessItem(name, name, context, ("b", "c"), 0, {"who": group}, name, "one")


class Letters:
    """One token per letter."""

    bos_token, eos_token, bos_token_id, eos_token_id = None, None, None, None

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]


def test_own_rows_are_the_tokens_no_other_item_holds() -> None:
    import subgroup

    items = [item("1", "x", "pqz"), item("2", "x", "pz"), item("3", "y", "qr"), item("4", "y", "r")]
    assert subgroup.own_rows(items, Letters(), "who", "x") == [ord("p"), ord("z")]
    with pytest.raises(UserError, match="who=w"):
        subgroup.own_rows(items, Letters(), "who", "w")
    with pytest.raises(UserError, match="no token that no other item holds"):
        subgroup.own_rows([*items, item("5", "x", "q"), item("6", "y", "pz")], Letters(), "who", "x")


def test_a_copy_says_what_was_done(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import damage

    asked = {"defect": "layer", "layer": 1, "bits": 2, "group_size": 32}
    record = damage.damage(str(tiny_llama), tmp_path / "layer", asked)
    assert json.loads((tmp_path / "layer" / "damage.json").read_text()) == record
    assert record["layer"] == 1
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "layer", dtype=torch.float32)
    assert {name.split(".")[2] for name in changed(copy, tiny_llama)} == {"1"}
    damage.damage(str(tiny_llama), tmp_path / "same", {"defect": "same"})
    same = AutoModelForCausalLM.from_pretrained(tmp_path / "same", dtype=torch.float32)
    assert changed(same, tiny_llama) == set()
