"""The Jinja environments: autoescaped HTML and plain Markdown, both refusing names that don't exist."""

from __future__ import annotations

import re
from datetime import datetime

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from awqbench.report import format as fmt
from awqbench.report import select
from awqbench.report.sections.verdict import sentence
from awqbench.resources import content


def breakable(text: object) -> Markup:
    """Escaped text that may break after the separators of metric and module ids."""
    parts = re.split(r"(?<=[/@_.,=])", str(text))
    return Markup("<wbr>").join(escape(part) for part in parts)


def when(text: str) -> str:
    """An ISO time to the minute; text that is none stays as it is."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


_FILTERS = {
    "value": fmt.value,
    "delta": fmt.delta,
    "magnitude": fmt.magnitude,
    "limit": fmt.limit,
    "p": fmt.p_value,
    "size": fmt.size,
    "seconds": fmt.seconds,
    "count": fmt.count,
    "relative": fmt.ratio,
    "number": fmt.significant,
    "short": fmt.short,
    "breakable": breakable,
    "when": when,
    "effect": select.effect,
    "outcome": select.outcome,
    "sentence": sentence,
}


def environment(escape: bool) -> Environment:
    """Templates of reports/; `escape` for HTML. Markdown escapes its cells itself with the `cell` filter."""
    made = Environment(
        loader=FileSystemLoader(content("reports")),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(_FILTERS)
    made.globals.update(interval=fmt.interval, times=fmt.times)
    return made
