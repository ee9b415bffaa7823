"""The noise floor: what the reference's difference to itself explains, and what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.record.schema import CellResult, Comparison, Difference, GroupDifference, Metric
from awqbench.suites.base import item_table

ACC = {"id": "tasks/a/acc", "unit": "share", "higher_is_better": True, "pairing": "difference"}
NLL = {"id": "perplexity/t@64", "unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}
KL = {"id": "divergence/t/kl", "unit": "nats per token", "higher_is_better": False, "pairing": "to-reference"}
TTFT = {"id": "latency/ttft", "unit": "s", "higher_is_better": False, "pairing": "ratio-of-medians"}
SIZE = {"id": "size/checkpoint", "unit": "bytes", "higher_is_better": False, "pairing": "none"}


def cell(backend: str, kind: dict[str, Any], scores: Any, **columns: Any) -> Cell:
    scores = np.asarray(scores, dtype=float)
    rows = [
        {"metric": kind["id"], "item_id": f"i{i:04d}", "score": s, **{k: v[i] for k, v in columns.items()}}
        for i, s in enumerate(scores)
    ]
    if kind is ACC:
        rows = [{**row, "correct": row["score"] == 1} for row in rows]
    role = "reference" if backend == "reference" else "noise" if backend.startswith("again") else "candidate"
    metric = Metric(value=float(scores.mean()), n=len(scores), protocol="p", **kind)
    result = CellResult(backend=backend, suite="s", kind="tasks", role=role, key="k", status="ok", metrics=[metric])
    return Cell(result, item_table([] if kind is SIZE else rows))


def table(*cells: Cell) -> Comparison:
    return compare_tables(cells, "reference", [c.result.backend for c in cells if c.result.role == "noise"])


def row(*cells: Cell) -> Difference:
    return next(d for d in table(*cells).differences if d.candidate == "awq")


def groups(*cells: Cell) -> dict[str, GroupDifference]:
    return {g.group: g for g in table(*cells).groups if g.candidate == "awq"}


def flipped(scores: Any, places: Any) -> Any:
    changed = np.asarray(scores, dtype=float).copy()
    changed[places] = 1 - changed[places]
    return changed


BEFORE = np.tile([1, 0], 200)


def test_a_loss_in_the_items_the_rerun_left_out_is_not_within_it() -> None:
    again = cell("again", ACC, flipped(BEFORE, [0, 3])[:160])
    calm = [cell("reference", ACC, BEFORE), again, cell("awq", ACC, flipped(BEFORE, [2, 5, 200, 301]))]
    assert row(*calm).within_noise is True
    harmed = [*calm[:2], cell("awq", ACC, flipped(BEFORE, range(200, 260, 2)))]
    found = row(*harmed)
    assert (found.delta, found.within_noise) == (-0.075, False)


def test_flips_that_cancel_are_seen() -> None:
    cells = [cell("reference", ACC, BEFORE), cell("again", ACC, flipped(BEFORE, [0])[:200])]
    found = row(*cells, cell("awq", ACC, flipped(BEFORE, range(60))))
    assert (found.delta, found.within_noise) == (0, False)


def test_beside_a_rerun_of_the_same_bits_only_the_same_bits_are_within() -> None:
    cells = [cell("reference", ACC, BEFORE), cell("again", ACC, BEFORE[:100])]
    assert row(*cells, cell("awq", ACC, BEFORE)).within_noise is True
    found = row(*cells, cell("awq", ACC, flipped(BEFORE, [399])))
    assert (found.noise, found.noise_reach, found.within_noise) == (0, 0, False)


def test_a_small_loss_in_one_direction_is_seen_although_no_item_moves_further() -> None:
    rng = np.random.default_rng(0)
    base, wobble = rng.normal(3, 0.5, 400), rng.normal(0, 0.01, 400)
    cells = [cell("reference", NLL, base), cell("again", NLL, (base + wobble)[:200])]
    assert row(*cells, cell("awq", NLL, base + np.abs(wobble))).within_noise is False
    assert row(*cells, cell("awq", NLL, base - wobble)).within_noise is True


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_another_rerun_is_within_the_floor_nine_times_in_ten(share: float) -> None:
    rng = np.random.default_rng(int(share * 10))
    base = rng.normal(3, 0.5, 100)
    within = 0
    for _ in range(40):
        one, two = (base + rng.normal(0, 0.01, 100) for _ in range(2))
        cells = [cell("reference", NLL, base), cell("again", NLL, one[: int(share * 100)]), cell("awq", NLL, two)]
        within += row(*cells).within_noise is True
    assert within >= 34


def test_the_largest_of_several_reruns_counts() -> None:
    cells = [cell("reference", ACC, BEFORE), cell("again", ACC, BEFORE), cell("again-2", ACC, flipped(BEFORE, [0, 2]))]
    found = table(*cells, cell("awq", ACC, flipped(BEFORE, [4])))
    assert found.noise_floor == ["again", "again-2"]
    against = next(d for d in found.differences if d.candidate == "awq")
    assert (against.noise, against.within_noise) == (-0.005, True)
    assert against.noise_flips.correct_to_wrong == 2
    assert next(d for d in found.differences if d.candidate == "again-2").noise is None


def test_a_distance_to_the_reference_has_a_floor() -> None:
    rerun = cell("again", KL, np.tile([3e-6, 5e-6], 10))
    assert row(rerun, cell("awq", KL, np.tile([5e-6, 3e-6], 20))).within_noise is True
    assert row(rerun, cell("awq", KL, np.tile([5e-3, 3e-3], 20))).within_noise is False


def test_times_and_sizes_have_a_floor() -> None:
    rng = np.random.default_rng(0)
    slow = cell("again", TTFT, rng.lognormal(0.05, 0.05, 10))
    cells = [cell("reference", TTFT, rng.lognormal(0, 0.05, 20)), slow]
    found = row(*cells, cell("awq", TTFT, rng.lognormal(0.03, 0.05, 20)))
    assert found.within_noise is True
    assert found.noise_reach > abs(found.noise) > 0
    assert row(*cells, cell("awq", TTFT, rng.lognormal(0.5, 0.05, 20))).within_noise is False
    sizes = [cell("reference", SIZE, [400]), cell("again", SIZE, [400]), cell("awq", SIZE, [100])]
    assert (row(*sizes).noise_reach, row(*sizes).within_noise) == (0, False)


def test_groups_have_a_floor_of_their_own() -> None:
    names = np.array(["a", "b"])[np.arange(400) % 4 // 2]
    before = cell("reference", ACC, BEFORE, group_g=names)
    again = cell("again", ACC, flipped(BEFORE, [0, 2, 5, 7])[:200], group_g=names)
    calm = groups(before, again, cell("awq", ACC, flipped(BEFORE, [4, 10, 203, 201]), group_g=names))
    assert {g.within_noise for g in calm.values()} == {True}
    assert calm["a"].noise_reach > 0
    harmed = groups(before, again, cell("awq", ACC, flipped(BEFORE, range(0, 120, 4)), group_g=names))
    assert (harmed["a"].did, harmed["a"].within_noise) == (-0.15, False)
    assert harmed["b"].within_noise is False  # the other side of the same difference


def test_a_group_the_rerun_did_not_measure_has_no_floor() -> None:
    names = np.array(["a", "b"])[np.arange(400) // 200]
    before, after = cell("reference", ACC, BEFORE, group_g=names), cell("awq", ACC, BEFORE, group_g=names)
    found = groups(before, cell("again", ACC, BEFORE[:200], group_g=names), after)
    assert {(g.noise, g.within_noise) for g in found.values()} == {(None, None)}


def test_a_record_that_names_one_rerun_is_read() -> None:
    assert Comparison(reference="r", noise_floor="again").noise_floor == ["again"]
    assert Comparison(reference="r", noise_floor=None).noise_floor == []
