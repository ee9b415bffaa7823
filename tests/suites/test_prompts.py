"""Sets of texts: ToxiGen's, BOLD's and people's own files, and their likelihoods by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from awqbench.backends.base import Scored
from awqbench.errors import UserError
from awqbench.suites.fairness_measures import set_measures
from awqbench.suites.fairness_sets import load_set


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"text": " A first text. ", "group_age": "old", "group": "x"},
        {"prompt": "A second.", "groups": {"age": "young", "left_out": None}, "cluster": 7, "source": "made up"},
    ]
    path = tmp_path / "My Texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    loaded = load_set(f"prompts:{path}")
    assert (loaded.name, loaded.kind) == ("prompts-my-texts", "text")
    assert [item.choices for item in loaded.items] == [("A first text.",), ("A second.",)]
    assert [dict(item.groups) for item in loaded.items] == [{"group": "x", "age": "old"}, {"age": "young"}]
    assert loaded.items[1].cluster == "prompts-my-texts/7"


def test_a_line_ends_where_a_file_of_lines_has_its_ends(tmp_path: Path) -> None:
    """Texts of the web hold U+2028 and U+0085, which JSON leaves as they are: they end no line."""
    text = "one\u2028two\x85three"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text, "group": "x"}, ensure_ascii=False) + "\n")
    (tmp_path / "b.txt").write_text(text + "\n")
    assert [item.choices for item in load_set(f"prompts:{tmp_path}").items] == [(text,), (text,)]


def test_a_text_whose_cluster_is_null_stands_alone(tmp_path: Path) -> None:
    rows = [{"text": text, "group": "x", "cluster": None} for text in ("one", "two", "two")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, again = load_set(f"prompts:{tmp_path}").items
    assert first.cluster != second.cluster == again.cluster


def test_bold(tmp_path: Path) -> None:
    people = {"American_actors": {"A_B": ["A B is an ", "A B was a "]}, "American_actresses": {"C_D": ["C D is an "]}}
    (tmp_path / "gender_prompt.json").write_text(json.dumps(people))
    first, second, third = load_set(f"bold:{tmp_path}").items
    assert first.choices == ("A B is an",)
    assert first.cluster == second.cluster != third.cluster
    assert dict(third.groups) == {"gender": "American_actresses"}
    assert [i.choices for i in load_set(f"prompts:{tmp_path}").items] == [i.choices for i in (first, second, third)]


def test_one_text_file_per_group(tmp_path: Path) -> None:
    (tmp_path / "nurses.txt").write_text("One.\n\nTwo.\nOne.\n")
    (tmp_path / "pilots.txt").write_text("Three.\n")
    items = load_set(f"prompts:{tmp_path}").items
    assert [item.groups["group"] for item in items] == ["nurses", "nurses", "nurses", "pilots"]
    assert items[0].cluster == items[2].cluster  # a text that is there twice is no second piece of evidence


def test_toxigen_takes_each_sentence_once(tmp_path: Path) -> None:
    lines = [r"- they sing well\n- they run a shop\n-", r"- they run a shop\n- they sing well\n-", r"- they run a sh"]
    (tmp_path / "neutral_native_american_1k.txt").write_text("\n".join(lines))
    items = load_set(f"toxigen:{tmp_path}").items
    assert [item.choices[0] for item in items] == ["they run a shop", "they sing well"]
    assert {item.groups["group"] for item in items} == {"native american"}


def test_likelihoods_by_hand(tmp_path: Path) -> None:
    """Four nats over two tokens and four bytes; six nats over three tokens and twelve bytes (six letters of two)."""
    (tmp_path / "a.txt").write_text("abcd\n")
    (tmp_path / "b.txt").write_text("éééééé\n", encoding="utf-8")
    loaded = load_set(f"prompts:{tmp_path}")
    scored = [[Scored(np.full(n, -2.0, np.float32), np.zeros(n, np.int32))] for n in (2, 3)]
    metrics, rows = set_measures(loaded, loaded.items, scored, 2)
    values = {metric.id.rpartition("/")[2]: metric.value for metric in metrics}
    assert values == {"perplexity": pytest.approx(math.exp(2)), "nats-per-byte": pytest.approx((1.0 + 0.5) / 2)}
    assert [row["score"] for row in rows] == [2.0, 2.0, 1.0, 0.5]
    perplexity, per_byte = metrics
    assert (perplexity.pairing, per_byte.pairing) == ("log-ratio", "difference")
    assert per_byte.detail["groups"]["group"]["by_group"]["b"] == {"value": 0.5, "n": 1}


def test_the_worst_group_is_the_least_likely(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}{name}\n{name}x\n")
    loaded = load_set(f"prompts:{tmp_path}")
    scored = [[Scored(np.array([nats], np.float32), np.zeros(1, np.int32))] for nats in (-2, -2, -4, -4)]
    metrics, _ = set_measures(loaded, loaded.items, scored, 2)
    gap = metrics[-1]
    assert (gap.id.rpartition("/")[2], gap.value, gap.unit) == ("gap[group]", 1.0, "nats per byte")
    assert gap.detail["worst"] == "b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "without a group"}', "line 1 is no prompt"),
        ("a.jsonl", '{"group": "x"}', "'prompt'"),
        ("a.jsonl", "no json", "line 1 is no prompt"),
        ("a_prompt.json", "[1]", "is no BOLD file"),
        ("a.csv", "text,group", "is no file or folder of prompts"),
        ("a.txt", "\n", "no texts in"),
    ],
)
def test_malformed(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_set(f"prompts:{tmp_path / name}")


def test_a_set_is_named_after_its_file_in_any_script(tmp_path: Path) -> None:
    names = {"Мои_тексты.txt": "prompts-мои-тексты", "文章.txt": "prompts-文章", "A  b_c.txt": "prompts-a-b-c"}
    for file in names:
        (tmp_path / file).write_text("A text.\n")
    assert [load_set(f"prompts:{tmp_path / file}").name for file in names] == list(names.values())


def test_encodings(tmp_path: Path) -> None:
    file = tmp_path / "people.txt"
    file.write_text("First.\nSecond.\n", encoding="utf-8-sig")
    assert load_set(f"prompts:{file}").items[0].choices == ("First.",)
    file.write_bytes("Zürich.".encode("latin-1"))
    with pytest.raises(UserError, match=r"cannot read .*people\.txt as UTF-8"):
        load_set(f"prompts:{file}")


def test_prompts_need_a_path() -> None:
    with pytest.raises(UserError, match="needs a path"):
        load_set("prompts")
