"""StereoSet: files of the published form, and its scores against cases worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.suites.fairness_sets import load_set
from awqbench.suites.fairness_sets.stereoset_scores import TermScores, term_scores
from awqbench.suites.fairness_sets.stereotypes import likelier


def item(number: int, target: str, part: str, **sentences: str) -> dict[str, Any]:
    labels = [("unrelated", "unrelated"), ("stereotype", "stereotype"), ("anti", "anti-stereotype")]
    return {
        "id": f"{part}{number}", "target": target, "bias_type": "profession",
        "context": "The chef is BLANK." if part == "intrasentence" else "The chef came home",
        "sentences": [
            {"id": f"{number}-{label}", "sentence": sentences.get(key, f"It is {key}."), "gold_label": label}
            for key, label in labels
        ],
    }  # fmt: skip


def file(folder: Path, intra: list[dict[str, Any]], inter: list[dict[str, Any]]) -> Path:
    path = folder / "dev.json"
    path.write_text(json.dumps({"version": "1.0", "data": {"intrasentence": intra, "intersentence": inter}}))
    return path


def test_two_sets_of_one_file(tmp_path: Path) -> None:
    path = file(tmp_path, [item(1, "Chef", "intrasentence")], [item(2, "Chef", "intersentence", anti=" It rests. ")])
    (intra,) = load_set(f"stereoset-intrasentence:{path}").items
    assert (intra.context, intra.choices) == ("", ("It is stereotype.", "It is anti.", "It is unrelated."))
    assert (intra.cluster, dict(intra.groups)) == ("stereoset/profession/chef", {"bias_type": "profession"})
    (inter,) = load_set(f"stereoset-intersentence:{tmp_path}").items
    assert (inter.context, inter.choices[1]) == ("The chef came home.", "It rests.")
    assert load_set(f"stereoset-intersentence:{path}").per == "token"


def test_means_are_over_terms() -> None:
    """Term a: lms 1, ss 1 over three items; term b: lms 0.5, ss 0 over one. By items ss would be 0.75."""
    found = term_scores(["a", "a", "a", "b"], [1, 1, 1, 0.5], [1, 1, 1, 0])
    assert (found.lms, found.ss, found.n, found.terms) == (0.75, 0.5, 4, 2)
    # Of the means, not the mean of the terms' own icat, both of which are 0.
    assert found.icat == 0.75


@pytest.mark.parametrize(
    ("lms", "ss", "icat"), [(1, 0.5, 1.0), (1, 1, 0.0), (1, 0, 0.0), (0.5, 0.5, 0.5), (0.9, 0.6, 0.72)]
)
def test_icat_of_the_papers_models(lms: float, ss: float, icat: float) -> None:
    """The ideal, the stereotyped, its opposite, the random, and one between: 0.9 * 0.4 / 0.5."""
    assert TermScores(lms, ss, 1, 1).icat == pytest.approx(icat)


@given(st.floats(0, 1), st.floats(0, 1))
def test_icat_is_as_far_above_as_below(lms: float, ss: float) -> None:
    one, other = TermScores(lms, ss, 1, 1).icat, TermScores(lms, 1 - ss, 1, 1).icat
    assert one == pytest.approx(other, abs=1e-12)
    assert 0 <= one <= lms + 1e-12


def test_measures_by_hand(tmp_path: Path) -> None:
    rows = [item(number, target, "intrasentence") for number, target in enumerate(("chef", "chef", "pilot"))]
    loaded = load_set(f"stereoset-intrasentence:{file(tmp_path, rows, [])}")
    # Mean log-likelihoods of stereotype, anti-stereotype, unrelated.
    scores = [[-1.0, -2.0, -3.0], [-3.0, -2.0, -2.5], [-2.0, -1.0, -0.5]]
    answers = [
        {"item_id": i.item_id, "cluster": i.cluster, "score": likelier(s[0], s[1])}
        for i, s in zip(loaded.items, scores, strict=True)
    ]
    assert loaded.extra
    metrics, table = loaded.extra(loaded.items, answers, scores, "p")
    values = {metric.id.removeprefix("fairness/stereoset-intrasentence/"): metric.value for metric in metrics}
    # chef: (1 + 0.5) / 2 related, one of two stereotyped; pilot: none related, none stereotyped.
    assert values == {
        "language-modelling": pytest.approx(0.5),
        "lms": pytest.approx(0.375),
        "ss": pytest.approx(0.25),
        "icat": pytest.approx(0.375 * 0.25 / 0.5),
        "lms[profession]": pytest.approx(0.375),
        "ss[profession]": pytest.approx(0.25),
        "icat[profession]": pytest.approx(0.1875),
    }
    assert [row["score"] for row in table] == [1.0, 0.5, 0.0]


def test_a_tie_counts_half() -> None:
    assert (likelier(1.0, 1.0), likelier(2.0, 1.0), likelier(1.0, 2.0)) == (0.5, 1.0, 0.0)


def test_malformed_files(tmp_path: Path) -> None:
    path = file(tmp_path, [], [])
    with pytest.raises(UserError, match="holds no intrasentence items"):
        load_set(f"stereoset-intrasentence:{path}")
    broken = item(1, "chef", "intrasentence")
    broken["sentences"][0]["gold_label"] = "stereotype"
    with pytest.raises(UserError, match="not one of each"):
        load_set(f"stereoset-intrasentence:{file(tmp_path, [broken], [])}")
    path.write_text("[]")
    with pytest.raises(UserError, match="is no StereoSet file"):
        load_set(f"stereoset-intersentence:{path}")
