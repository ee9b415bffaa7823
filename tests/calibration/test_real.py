"""A real trained model against itself and against copies damaged on purpose: no false alarm, every defect found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from awqbench.compare import compare_tables
from awqbench.compare.cell import Cell
from awqbench.gate import judge
from awqbench.policies import load_policy
from awqbench.record.schema import Verdict
from awqbench.resources import content
from awqbench.suites.fairness_sets import load_set

pytestmark = pytest.mark.data
PRESETS = content("suites") / "presets"
TEXTS = ("perplexity", "divergence")


def shipped(preset: str, *kinds: str) -> list[Any]:
    """The gates of a preset that judge these kinds of suites; for fairness also the overall accuracy's (gate.toml)."""
    gates = list(load_policy(PRESETS / f"{preset}.toml").gates)
    gates += [g for g in load_policy(content("suites") / "gate.toml").gates if g.metric.startswith("fairness/")]
    return [gate for gate in gates if gate.metric.split("/")[0] in kinds and gate.attribute != "gender"]


def verdict(reference: list[Cell], cells: list[Cell], *kinds: str) -> Verdict:
    both = [*reference, *cells]
    return judge(
        shipped("full", *kinds), both, compare_tables(both, "reference", None), "reference", policy_hash="test"
    )


def rules(found: Verdict) -> dict[str, str]:
    """What each rule says: by the group, or by the metric without its text or set."""
    return {rule.group or _short(rule.metric): rule.verdict for rule in found.rules}


def _short(metric: str) -> str:
    suite, _, *end = metric.split("/")
    return "/".join([suite, *end])


@pytest.mark.parametrize("batch_size", [1, 3, 5, 16, 64])
def test_the_same_model_in_other_batches_never_fails(
    reference: list[Cell], stories: Any, candidate: Callable[..., list[Cell]], batch_size: int
) -> None:
    cells = candidate(stories.model(), batch_size, share=0.3)
    found = verdict(reference, cells, "perplexity", "divergence", "fairness")
    said = rules(found)
    assert "fail" not in said.values()
    assert {said[name] for name in ("perplexity", "divergence/prefill/kl", "divergence/decode/kl")} == {"pass"}
    kl = next(m for m in cells[1].result.metrics if m.id.endswith("prefill/kl"))
    assert kl.value is not None
    assert kl.value < 1e-6


def test_a_rounded_layer_fails_as_shipped(
    reference: list[Cell], stories: Any, candidate: Callable[..., list[Cell]]
) -> None:
    import defects

    model = stories.model()
    defects.round_layer(model, 2)
    found = verdict(reference, candidate(model, suites=TEXTS), *TEXTS)
    assert set(rules(found).values()) == {"fail"}


def test_a_zeroed_head_is_within_the_shipped_margins_and_beyond_tighter_ones(
    reference: list[Cell], stories: Any, candidate: Callable[..., list[Cell]]
) -> None:
    """One head of 40 costs this model 0.03 nats: less than the 0.1 that the presets allow, more than 0.01."""
    import defects

    model = stories.model()
    defects.zero_head(model, 4, 3)
    cells = candidate(model, suites=TEXTS)
    assert "fail" not in rules(verdict(reference, cells, *TEXTS)).values()
    tight = [gate.model_copy(update={"margin": 0.01}) for gate in shipped("full", "divergence")]
    both = [*reference, *cells]
    found = judge(tight, both, compare_tables(both, "reference", None), "reference", policy_hash="test")
    assert found.overall == "fail"
    assert rules(found)["divergence/prefill/kl"] == "fail"


def test_harm_to_one_group_is_named_while_the_average_passes(
    reference: list[Cell], stories: Any, tokenizer: Any, candidate: Callable[..., list[Cell]]
) -> None:
    import defects
    import subgroup

    items = load_set(f"counterfactual:{stories.questions}").items
    model = stories.model()
    rows = subgroup.own_rows(items, tokenizer, "character", "Tim")
    assert tokenizer.convert_ids_to_tokens(rows) == ["▁Tim"]
    mine = [item for item in items if item.groups["character"] == "Tim"]
    worst, losses = subgroup.worst_direction(model, tokenizer, mine[::2], rows, 1.0)
    assert losses[-1] > losses[0] + 1
    defects.shift_rows(model, rows, worst, 1.0)
    cells = candidate(model, suites=("fairness",))
    found = verdict(reference, cells, "fairness")
    said = rules(found)
    assert said.pop("Tim") == "fail"
    assert said["fairness/accuracy"] == "pass"
    assert "fail" not in said.values()
    assert found.overall == "fail"
    before, after = (cell.items[cell.items["group_character"] != "Tim"] for cell in (reference[-1], cells[-1]))
    assert before["nll"].tolist() == pytest.approx(after["nll"].tolist(), abs=1e-4)


def test_a_random_shift_of_the_same_size_costs_the_group_nothing(
    reference: list[Cell], stories: Any, tokenizer: Any, candidate: Callable[..., list[Cell]]
) -> None:
    import defects
    import subgroup

    items = load_set(f"counterfactual:{stories.questions}").items
    model = stories.model()
    rows = subgroup.own_rows(items, tokenizer, "character", "Tim")
    defects.shift_rows(model, rows, defects.noise(model, rows, 0), 1.0)
    assert (
        "fail" not in rules(verdict(reference, candidate(model, suites=("fairness",), share=0.3), "fairness")).values()
    )


def test_untied_output_weights_change_nothing(stories: Any) -> None:
    import defects

    model, ids = stories.model(), torch.arange(3, 40)[None]
    with torch.no_grad():
        before = model(ids).logits
        defects.untie(model)
        model.get_input_embeddings().weight[500] += 1.0
        assert torch.equal(model(ids).logits, before)
