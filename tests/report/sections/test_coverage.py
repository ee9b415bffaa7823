"""A failed cell shows the last lines of its log, as text and nothing else."""

from __future__ import annotations

import html as entities

from awqbench.record.reader import Run
from awqbench.report.html import html
from awqbench.report.markdown import markdown

LINES = ["loading </pre></details><script>alert(1)</script>", "| a | b | @everyone `x`", "Fatal: 3 of 4"]


def with_log(run: Run) -> Run:
    (failed,) = [cell.result for cell in run.cells if cell.result.status == "failed"]
    failed.log_tail = LINES
    return run


def test_in_the_page(run: Run) -> None:
    assert "its last lines" not in html(run)
    page = html(with_log(run))
    assert "Log of rtn, latency: its last lines" in page
    assert "<script>alert" not in page
    assert "\n".join(LINES) in entities.unescape(page)


def test_in_the_comment(run: Run) -> None:
    assert "<details>" not in markdown(run)
    text = markdown(with_log(run))
    block = "\n".join(f"    {line}" for line in LINES)
    assert f"<details><summary>The log's last lines: rtn, latency</summary>\n\n{block}\n\n</details>\n\n" in text
