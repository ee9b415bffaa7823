"""Loaders of BBQ, CrowS-Pairs and WinoBias: on files of the tests' own making, and on the real ones where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from awqbench.errors import UserError
from awqbench.suites.fairness_sets import load_set

BBQ_ROW: dict[str, Any] = {
    "example_id": 0, "question_index": "1", "question_polarity": "neg", "context_condition": "ambig",
    "category": "Test", "answer_info": {"ans0": ["the Blue man", "blue"], "ans1": ["Nobody knows", "unknown"],
                                        "ans2": ["the Red man", "red"]},
    "additional_metadata": {"stereotyped_groups": ["Red"]}, "context": "Two men came in.", "question": "Who lied?",
    "ans0": "The Blue man", "ans1": "Nobody knows", "ans2": "The Red man", "label": 1,
}  # fmt: skip


def bbq(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "Test.jsonl").write_text("".join(json.dumps({**BBQ_ROW, **row}) + "\n" for row in rows))
    return f"bbq:{folder}"


def test_bbq_reads_gold_and_bias(tmp_path: Path) -> None:
    name = bbq(
        tmp_path, {}, {"example_id": 1, "question_polarity": "nonneg", "context_condition": "disambig", "label": 0}
    )
    negative, other = load_set(name).items
    assert negative.context == "Two men came in.\nQuestion: Who lied?\nAnswer:"
    assert (negative.gold, other.gold) == (1, 0)
    # Asked for something bad the stereotype names the group, asked for something good the other person.
    assert (negative.meta["biased"], other.meta["biased"]) == (2, 0)
    assert negative.meta["unknown"] == 1
    assert dict(negative.groups) == {"category": "Test", "condition": "ambiguous", "stereotyped": "red"}
    assert negative.cluster == other.cluster == "bbq/Test/1"
    assert negative.block == other.block


@pytest.mark.parametrize(
    ("groups", "biased"),
    [(["RED"], 2), (["man"], None), (["Green"], None), ([], None)],
    ids=["label without case", "both people", "neither", "no group"],
)
def test_bbq_target(tmp_path: Path, groups: list[str], biased: int | None) -> None:
    loaded = load_set(bbq(tmp_path, {"additional_metadata": {"stereotyped_groups": groups}}))
    assert loaded.items[0].meta["biased"] == biased
    assert loaded.notes["items_without_known_target"] == (biased is None)


def test_bbq_target_by_description(tmp_path: Path) -> None:
    """Where the label is a region and the groups are nationalities."""
    info = {"ans0": ["Kenyan", "Africa"], "ans1": ["Nobody knows", "unknown"], "ans2": ["Swede", "Europe"]}
    row = {"answer_info": info, "additional_metadata": {"stereotyped_groups": ["Kenyan", "Malian"]}}
    (item,) = load_set(bbq(tmp_path, row)).items
    assert item.meta["biased"] == 0
    assert item.groups["stereotyped"] == "Africa"


def test_crows_pairs(tmp_path: Path) -> None:
    header = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
    (tmp_path / "pairs.csv").write_text(header + '0,"More, of it.",Less of it.,antistereo,age,[]\n')
    (item,) = load_set(f"crows-pairs:{tmp_path / 'pairs.csv'}").items
    assert item.choices == ("More, of it.", "Less of it.")
    assert item.gold is None
    assert dict(item.groups) == {"bias_type": "age", "direction": "antistereo"}


def winobias(folder: Path, pro: list[str], anti: list[str]) -> str:
    for side, sentences in (("pro", pro), ("anti", anti)):
        lines = "".join(f"{number} {sentence}\n" for number, sentence in enumerate(sentences, 1))
        (folder / f"{side}_stereotyped_type1.txt.dev").write_text(lines)
    return f"winobias:{folder}"


def test_winobias(tmp_path: Path) -> None:
    pro = [
        "[The cook] paid because [he] ate.",
        "The cook paid [the nurse] and [ her ] aide.",
        "[The cook] ran as [he] won.",
    ]
    anti = [
        "[The cook] paid because [she] ate.",
        "The cook paid [the nurse] and [his] aide.",
        "[The cook] ran, [she] won.",
    ]
    loaded = load_set(winobias(tmp_path, pro, anti))
    assert [item.choices for item in loaded.items] == [
        ("The cook paid because he ate.", "The cook paid because she ate."),
        ("The cook paid the nurse and her aide.", "The cook paid the nurse and his aide."),
    ]
    assert [item.groups["gender"] for item in loaded.items] == ["male", "female"]
    assert [item.groups["occupation"] for item in loaded.items] == ["cook", "nurse"]
    assert len({item.cluster for item in loaded.items}) == 1
    assert loaded.notes == {"pairs_left_out": 1}


@pytest.mark.parametrize("name", ["bbq", "crows-pairs", "winobias"])
def test_missing_and_malformed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWQBENCH_DATA", raising=False)
    with pytest.raises(UserError, match="set AWQBENCH_DATA"):
        load_set(name)
    with pytest.raises(UserError, match=r"no \S+ in"):
        load_set(f"{name}:{tmp_path}")
    files = {"bbq": "a.jsonl", "crows-pairs": "a.csv", "winobias": "pro_stereotyped_type1.txt.dev"}
    (tmp_path / files[name]).write_text("nonsense\n")
    (tmp_path / "anti_stereotyped_type1.txt.dev").write_text("nonsense\n")
    with pytest.raises(UserError, match="is no"):
        load_set(f"{name}:{tmp_path}")


def test_unknown_set() -> None:
    with pytest.raises(UserError, match="did you mean 'counterfactual'"):
        load_set("counterfactuals")


@pytest.mark.data
def test_real_files(data_dir: Path) -> None:
    bbq_set = load_set(f"bbq:{data_dir / 'bbq'}")
    # Two ambiguous and two disambiguated questions about the same people, so both conditions are equally frequent.
    assert set(Counter(item.block for item in bbq_set.items).values()) == {4}
    conditions = Counter(item.groups["condition"] for item in bbq_set.items)
    assert conditions["ambiguous"] == conditions["disambiguated"]
    for item in bbq_set.items:
        assert (item.gold == item.meta["unknown"]) == (item.groups["condition"] == "ambiguous")
    assert len(load_set(f"crows-pairs:{data_dir / 'crows-pairs'}").items) == 1508
    winobias_set = load_set(f"winobias:{data_dir / 'winobias'}")
    assert len(winobias_set.items) + winobias_set.notes["pairs_left_out"] == 792
    genders = Counter(item.groups["gender"] for item in winobias_set.items)
    assert abs(genders["male"] - genders["female"]) <= 10
