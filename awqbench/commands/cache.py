"""`awqbench cache info` and `clear`: the response cache."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import typer

from awqbench.commands.options import Json

cache = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at the response cache, or remove it: answers kept between runs, where \\[cache] or --cache asks for it.",
)


@cache.command()
def info(as_json: Json = False) -> None:
    """Say where the response cache lies and how much it holds.

    Example: [bold]awqbench cache info[/]
    """
    from awqbench.report.format import size
    from awqbench.responses.store import store_info, store_path

    found = store_info(store_path())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    last = found["last_used"]
    used = f", last used {datetime.fromtimestamp(last, UTC).astimezone():%Y-%m-%d %H:%M}" if last else ""
    print(f"{found['path']}: {found['answers']:,} answers, {size(found['bytes'])}{used}")
    if "damaged" in found:
        print(f"it is damaged ({found['damaged']}): the next run begins it anew")


@cache.command()
def clear() -> None:
    """Remove the response cache. The next run that wants one measures everything.

    Example: [bold]awqbench cache clear[/]
    """
    from awqbench.report.format import size
    from awqbench.responses.store import clear_store, store_path

    path = store_path()
    print(f"removed {path}: {size(clear_store(path))}")
