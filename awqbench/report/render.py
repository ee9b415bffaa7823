"""Render every output of a run directory, from the run directory alone."""

from __future__ import annotations

from pathlib import Path

from awqbench.record.files import write_atomic
from awqbench.record.reader import load_run
from awqbench.report.eval_results import eval_results
from awqbench.report.html import html
from awqbench.report.junit import junit
from awqbench.report.markdown import markdown

OUTPUTS = {
    "report.html": html,
    "report.md": markdown,
    "junit.xml": junit,
    "eval_results.yaml": eval_results,
}


def render(run_dir: Path) -> list[Path]:
    """Write report.html, report.md, junit.xml and eval_results.yaml beside the records; returns their paths.

    The same records give the same bytes. Of an unfinished run the cells alone are told: a comparison or a verdict that
    lies there is of the cells before. Raises UserError when `run_dir` is no run directory or a record is damaged.
    """
    run = load_run(run_dir)
    if run.manifest.finished is None:
        run.comparison = run.verdict = None
    # All are rendered before any is written: a failure leaves the earlier outputs as they were.
    rendered = {Path(run_dir) / name: write(run) for name, write in OUTPUTS.items()}
    for path, text in rendered.items():
        write_atomic(path, text)
    return list(rendered)
