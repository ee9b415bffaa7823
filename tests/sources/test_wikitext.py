"""WikiText's articles as lm-eval's data set cuts them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.sources.wikitext import articles, wikitext_articles


def test_titles_cut_and_deeper_headings_do_not() -> None:
    lines = [" \n", " = One = \n", "", " text \n", " = = Part = = \n", " = = = Deep = = = \n", " = Two = \n", " end \n"]
    assert articles(lines) == [
        " = One = \n \n text \n = = Part = = \n = = = Deep = = = ",
        " = Two = \n end \n",
    ]


def test_a_text_before_the_first_title_is_an_article() -> None:
    assert articles(["a \n", " = T = \n"]) == ["a ", " = T = \n"]


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(UserError, match="is no WikiText"):
        wikitext_articles("no.txt")


@pytest.mark.data
def test_the_test_split_is_what_lm_eval_scores(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWQBENCH_DATA", str(data_dir))
    pages = wikitext_articles("wikitext2-raw-test")
    assert len(pages) == 62
    # The split's 241,211 words, and an empty one at each end of each page, which lm-eval counts too.
    assert sum(len(re.split(r"\s+", page)) for page in pages) == 241_211 + 2 * 62
    assert wikitext_articles(str(data_dir / "wikitext-2" / "wiki.test.raw")) == pages
