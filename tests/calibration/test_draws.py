"""Samples of clusters, and what is promised of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from awqbench.compare.cell import Cell
from awqbench.record.schema import CellResult, Metric
from awqbench.spec import GateSpec
from awqbench.stats import mde, required_n
from awqbench.suites.base import item_table

METRIC = "fairness/x/accuracy"


def cell(name: str, scores: list[list[float]]) -> Cell:
    """Clusters of two items, the first about group a, the second about group b."""
    rows = [
        {"metric": METRIC, "item_id": f"{c}-{g}", "cluster": f"c{c}", "score": score, "group_who": g}
        for c, pair in enumerate(scores)
        for g, score in zip("ab", pair, strict=True)
    ]
    metric = Metric(id=METRIC, value=0.5, unit="share", n=len(rows), protocol="", higher_is_better=True)
    role = "reference" if name == "reference" else "candidate"
    result = CellResult(
        backend=name, suite="fairness", kind="fairness", role=role, key="", status="ok", metrics=[metric]
    )
    return Cell(result, item_table(rows))


BEFORE = cell("reference", [[1, 1], [1, 0], [1, 1]])
AFTER = cell("other", [[0, 1], [1, 0], [0, 1]])


def test_losses_and_members_by_cluster() -> None:
    import draws

    items = draws.paired(BEFORE, AFTER, METRIC, ("who", "a"))
    assert items.loss.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert items.member is not None
    assert items.member.tolist() == [[True, False]] * 3
    assert items.binary
    loss, member, codes = items.drawn(50, np.random.default_rng(0))
    assert loss.shape == member.shape == codes.shape == (100,)
    assert loss[~member].sum() == 0
    assert set(codes) == set(range(50))


def test_a_distance_is_its_own_loss_drawn_by_itself_and_judged_in_batches() -> None:
    import draws

    items = draws.paired(Cell(BEFORE.result, pd.DataFrame()), BEFORE, METRIC)
    assert items.loss.tolist() == [[1], [1], [1], [0], [1], [1]]
    loss, _, codes = items.drawn(8, np.random.default_rng(0))
    assert loss.shape == (8,)
    assert codes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_equal_log_likelihoods_are_no_equal_answers() -> None:
    """Unchanged windows show the same model; unchanged answers show little."""
    import draws

    metric = Metric(
        id=METRIC, value=1.0, unit="perplexity", n=6, protocol="", higher_is_better=False, pairing="log-ratio"
    )
    same = Cell(AFTER.result.model_copy(update={"metrics": [metric]}), BEFORE.items)
    assert not draws.paired(BEFORE, same, METRIC).binary
    assert draws.paired(BEFORE, Cell(AFTER.result, BEFORE.items), METRIC).binary


def test_samples_keep_pairs_and_tell_copies_of_a_cluster_apart() -> None:
    import draws

    clusters = draws.taken([["c0"], ["c1", "c2"]], 7, np.random.default_rng(0))
    assert len(clusters) == 7
    assert clusters.count("c0") == 3
    before, after = (cell.items for cell in draws.cells_on([BEFORE, AFTER], clusters))
    assert before["item_id"].is_unique
    assert before["item_id"].tolist() == after["item_id"].tolist()
    assert before["cluster"].str.split("#").str[0].drop_duplicates().isin(clusters).all()
    assert before["cluster"].nunique() == 7
    assert draws.families(BEFORE) == [["c0", "c1", "c2"]]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_rules_on_arrays_are_the_gate(seed: int, strict: bool) -> None:
    """The same verdicts as the gate's own, with a harm to group a that grows with the seed."""
    import draws
    import power as program
    import rules

    rng = np.random.default_rng(seed)
    before = (rng.random((30, 2)) < 0.9).astype(float)
    after = before * (rng.random((30, 2)) > [0.25 * seed, 0.02])
    pair = [cell("reference", before.tolist()), cell("other", after.tolist())]
    gates = [
        GateSpec(metric="fairness/*/accuracy", margin=0.2),
        GateSpec(metric="fairness/*/accuracy", margin=0.1, attribute="*", zero_tolerance=strict),
    ]
    clusters = draws.taken(draws.families(pair[1]), 40, rng)
    said = rules.Losses(*pair, METRIC).verdicts(clusters, gates)
    assert len(said) == 3
    assert said == program._judged(gates, draws.cells_on(pair, clusters))


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_promised_power_inverts_mde_and_required_n(power: float) -> None:
    import power as program

    effect = mde(40, sd=0.3, power=power, sided="one")
    assert program.promised(effect, 0.3, 40) == pytest.approx(power)
    n = required_n(0.1, sd=0.3, power=power)
    assert program.promised(0.1, 0.3, n - 1) < power <= program.promised(0.1, 0.3, n)
