"""Does a backend keep what its capabilities promise? For those who write one, inside this project or outside.

    python -m awqbench.conformance KIND                    # a table, and exit status 1 where something fails

    from awqbench.conformance import conform               # in a test
    report = conform("mine", {"option": 1})
    assert not report.failed, report

The backend runs in a real worker on a real model (a tiny one by default). docs/backends.md says what is promised.
"""

from __future__ import annotations

from awqbench.conformance.runner import conform
from awqbench.conformance.verdict import Finding, Report

__all__ = ["Finding", "Report", "conform"]
