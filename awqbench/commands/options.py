"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Confirm = Annotated[
    bool,
    typer.Option(
        "--confirm", help="Measure what fails again, on other items where there are any: only what fails twice fails."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
