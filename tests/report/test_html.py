"""report.html: complete, self-contained, escaped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from awqbench.record.files import write_model
from awqbench.record.reader import Run, load_run
from awqbench.report import render
from awqbench.report.eval_results import eval_results
from awqbench.report.html import html
from awqbench.report.junit import junit

VOID = {"meta", "link", "br", "wbr", "input", "img", "hr"}


class Page(HTMLParser):
    """Collects what a page holds; raises where tags don't nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split()).replace("\u00a0", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(rendered: dict[str, str]) -> Page:
    return Page(rendered["report.html"])


def test_the_answer_stands_first(page: Page) -> None:
    words = page.words
    assert "awq may NOT ship" in words
    assert words.index("awq may NOT ship") < words.index("At a glance") < words.index("Declared limits")
    assert "limit 5 %" in words


def test_nothing_is_loaded_from_anywhere(rendered: dict[str, str], page: Page) -> None:
    assert not page.all("link")
    assert not page.all("img")
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", rendered["report.html"]))
    assert outside <= {"http://www.w3.org"}  # SVG's namespace, which nothing fetches
    assert "@import" not in rendered["report.html"]
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_it_is_navigable_without_eyes_or_colour(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "ids repeat"
    for attributes in page.all("a"):
        assert str(attributes["href"]).removeprefix("#") in ids
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in th for th in page.all("th"))
    charts = page.all("svg")
    assert len(charts) >= 10
    assert all(chart.get("role") == "img" and chart.get("aria-labelledby") for chart in charts)
    assert page.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]


def test_each_section_says_what_was_found(page: Page) -> None:
    for phrase in (
        "rtn: failed. out of memory at batch size 4",  # a cell without figures, with its reason
        "reference-again: not applicable",
        "the yardstick",
        "origin = south under awq : lost 30.0 points more than the attribute's other groups",
        "too few items: not judged",
        "Percentiles over single positions",
        "no GPU: the NVML library was not found",
        "nothing absorbs a scale",
        "the calibration text holds 8 of the 9 windows asked for",
        "awqbench run bench.toml --out 'runs/a b'",
        "against rtn",
        "Minimum detectable effect",
    ):
        assert phrase in page.words, phrase


def test_an_engineered_name_or_answer_stays_text(write_run: Callable[..., Path], tmp_path: Path) -> None:
    name, answer = "<script>alert('m')</script>", "</td><img src=x onerror=alert(1)>\" onload='x'"
    run = load_run(write_run(tmp_path / "run", model=name, answer=answer))
    assert run.comparison is not None
    for cell in run.cells:
        cell.result.backend = cell.result.backend.replace("rtn", "<b>rtn</b>")
    for difference in run.comparison.differences:
        difference.candidate = difference.candidate.replace("rtn", "<b>rtn</b>")
    hostile = Page(html(run))
    assert len(hostile.all("script")) == 1
    assert not hostile.all("img")
    assert name in hostile.words
    assert "onerror=alert(1)" in hostile.words
    assert "<b>rtn</b>" in hostile.words  # also as a label inside the charts
    assert not any(attribute.startswith("on") for _, attributes in hostile.tags for attribute in attributes)


def test_gpu_figures_replace_the_note(write_run: Callable[..., Path], tmp_path: Path) -> None:
    words = Page(html(load_run(write_run(tmp_path / "run", gpu=True)))).words
    assert "GPU 0 power, W" in words
    assert "no GPU" not in words
    assert "yes: figures suspect" in words


def test_what_is_shown_in_several_units_is_sorted_by_its_amount(rendered: dict[str, str]) -> None:
    """By its text 1.2 GiB would come before 980 MiB."""
    tables = re.findall(r'<table class="sortable">.*?</table>', rendered["report.html"], re.DOTALL)
    plain = [text for table in tables for text in re.findall(r'<td class="num">([^<]*)</td>', table)]
    assert plain
    assert [text for text in plain if re.fullmatch(r"[\d.,]+\xa0(B|KiB|MiB|GiB|ns|µs|ms|s|min|h)", text)] == []


def test_a_run_directory_that_is_used_again_tells_when_it_was_measured_last(run: Run) -> None:
    """Not when it was made: nightly runs may share one for months."""
    for cell, day in zip(run.cells, itertools.cycle(("2026-05-01", "2026-05-02")), strict=False):
        cell.result.started = f"{day}T01:00:00+00:00"
    assert "measured 2026-05-02 01:00 UTC" in Page(html(run)).words
    stamps = {suite.attrib["timestamp"] for suite in ElementTree.fromstring(junit(run).encode())}
    assert stamps == {"2026-05-02T01:00:00+00:00"}
    assert "2025-" not in eval_results(run)


def test_a_run_without_limits_says_so(run: Run) -> None:
    run.verdict = None
    run.manifest.spec = {**run.manifest.spec, "gates": []}
    words = Page(html(run)).words
    assert "awq was not judged: no limits were declared" in words
    assert "Declared limits" not in words


def test_limits_that_were_not_applied_are_not_said_to_be_missing(run: Run) -> None:
    """Of a run that is being measured again, or whose limits fit no metric, there is no verdict either."""
    run.verdict = None
    assert "awq was not judged: its limits could not be applied" in Page(html(run)).words
    run.manifest.finished = None
    assert "awq was not judged: the run is unfinished" in Page(html(run)).words


def test_limits_that_were_changed_after_the_run_began_are_called_that(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_run(tmp_path / "run")
    manifest = load_run(root).manifest
    judged = load_run(root).verdict
    assert judged is not None
    declared = manifest.model_copy(update={"declared_policy_hash": judged.policy_hash})
    for hash, said in ((judged.policy_hash, False), ("0" * 64, True)):
        write_model(root / "manifest.json", declared.model_copy(update={"declared_policy_hash": hash}))
        render(root)
        page = (root / "report.html").read_text()
        assert ("Not the limits that were declared when the run began" in page) is said
