"""report.html: one file, readable offline, that loads and sends nothing."""

from __future__ import annotations

import base64
import hashlib

from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from awqbench.record.reader import Run
from awqbench.report.sections.attribution import attributions
from awqbench.report.sections.bands import band_chart, bands
from awqbench.report.sections.bias import label_rates, lost_most, turned
from awqbench.report.sections.coverage import coverage
from awqbench.report.sections.engines import engines
from awqbench.report.sections.fairness import attributes, charts, worst
from awqbench.report.sections.flips import flips
from awqbench.report.sections.latency import latency
from awqbench.report.sections.provenance import provenance
from awqbench.report.sections.quantization import quantization
from awqbench.report.sections.suites import percentiles, suites, tail_chart
from awqbench.report.sections.telemetry import telemetry
from awqbench.report.sections.verdict import cards, glance
from awqbench.report.select import model_label, roles, rules_of
from awqbench.report.template import environment
from awqbench.resources import content


def html(run: Run) -> str:
    """The whole page. Its content security policy admits its own script by hash, and nothing from outside."""
    style = (content("reports") / "report.css").read_text(encoding="utf-8")
    script = (content("reports") / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Altair checks every object against its JSON schema as it is made: the charts' tests do that, not every report.
    with debug_mode(False):
        views = suites(run)
        backends, headline = glance(run)
        banded = {view.name: bands(run, view) for view in views if view.kind == "divergence"}
        groups = {view.name: attributes(run, view.name) for view in views}
        return (
            environment(escape=True)
            .get_template("report.html.j2")
            .render(
                model=model_label(run),
                manifest=run.manifest,
                measured=run.measured,
                comparison=run.comparison,
                verdict=run.verdict,
                roles=roles(run),
                kinds={view.name: view.kind for view in views},
                titles={view.name: view.title for view in views},
                cards=cards(run),
                glance_backends=backends,
                glance=headline,
                rules=rules_of(run),
                coverage=coverage(run),
                suites=views,
                groups=groups,
                group_charts={name: charts(run, found) for name, found in groups.items()},
                worst={name: worst(found) for name, found in groups.items()},
                bias={
                    view.name: {
                        "turned": turned(run, view.name),
                        "lost_most": lost_most(run, view.name),
                        "label_rates": label_rates(run, view.name),
                    }
                    for view in views
                },
                latency={view.name: latency(run, view) for view in views if view.kind == "latency"},
                percentiles={view.name: percentiles(view) for view in views if view.kind == "divergence"},
                tails={view.name: tail_chart(run, view) for view in views if view.kind == "divergence"},
                bands=banded,
                band_charts={
                    view.name: band_chart(run, view, banded[view.name]) for view in views if view.name in banded
                },
                flips=flips(run),
                telemetry=telemetry(run),
                engines=engines(run),
                quantization=quantization(run),
                attributions=attributions(run),
                provenance=provenance(run),
                style=Markup(style),
                script=Markup(script),
                script_hash=digest,
            )
        )
