from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from awqbench.attribution.units import Units, item_units, text_units
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.sources.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def counterfactual(items: int = 60, **asked: str) -> Units:
    return item_units(TOKENIZER, "counterfactual", items, 2048, **asked)  # type: ignore[arg-type]


def test_windows_take_turns_and_share_no_token(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number:04d}\n" for number in range(200)))
    units = text_units(TOKENIZER, str(text), 50, 4, 2048, tmp_path)
    assert (units.estimating, units.confirming) == ([0, 2, 4, 6], [1, 3, 5, 7])
    starts = [text.read_text().index(TOKENIZER.decode(ids)) for ids in units.damage.windows]  # type: ignore[attr-defined]
    assert all(after - before >= 50 for before, after in pairwise(starts))
    assert units.tokens(units.estimating) == 200
    assert units.about["text"].startswith("text-")


@pytest.mark.parametrize(("windows", "clusters"), [(8, 8), (40, 6)])
def test_windows_near_each_other_are_no_independent_draws(tmp_path: Path, windows: int, clusters: int) -> None:
    """40 of a half lie 2,500 tokens from each other, where KL still hangs together."""
    text = tmp_path / "text.txt"
    text.write_text("0123456789" * 10_000)
    units = text_units(TOKENIZER, str(text), 64, windows, 2048, tmp_path)
    for half in (units.estimating, units.confirming):
        own = [units.damage.clusters[unit] for unit in half]
        assert (len(half), len(set(own)), own) == (windows, clusters, sorted(own))


def test_clusters_are_never_parted_and_groups_are_in_both_halves() -> None:
    units = counterfactual(attribute="gender", group="female")
    clusters = [{units.damage.clusters[unit] for unit in half} for half in (units.estimating, units.confirming)]
    assert not clusters[0] & clusters[1]
    assert set(units.groups) == {"female", "male"}
    for half in (units.estimating, units.confirming):
        sample = units.sample(half)
        assert sample.in_group.sum() * 2 == len(half)
    assert not units.damage.distance


def test_without_an_attribute_all_items_count() -> None:
    units = counterfactual()
    assert units.sample(units.estimating).in_group.all()
    assert units.about["name"] == "counterfactual/choice"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"attribute": "height"}, "unknown attribute 'height'"),
        ({"attribute": "gender", "group": "tall"}, "unknown group of gender 'tall'"),
        ({"group": "female"}, "group 'female' is of no attribute"),
        ({"loss": "preference"}, "unknown loss of the set counterfactual 'preference'.*choice, nll"),
    ],
)
def test_what_is_unknown_is_named(asked: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        counterfactual(**asked)


def test_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMeasurement, match=r"halves of \d+ and 0"):
        counterfactual(1, attribute="gender")
    with pytest.raises(UserError, match="windows is 1"):
        text_units(TOKENIZER, "pydoc-topics", 16, 1, 2048, tmp_path)
    with pytest.raises(UserError, match="window is 4096"):
        text_units(TOKENIZER, "pydoc-topics", 4096, 2, 2048, tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(UserError, match="11 tokens, fewer than 4 windows of 16"):
        text_units(TOKENIZER, str(short), 16, 2, 2048, tmp_path)
