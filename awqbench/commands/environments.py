"""`awqbench env create`, `list` and `remove`: options in, lines out."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awqbench.commands.options import Json

if TYPE_CHECKING:
    from awqbench.environments import Plan, State

environments = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make and list the Python environments of engines that cannot live beside awqbench.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="An environment that [bold]awqbench env list[/] shows.")]

CREATE = """Make the environment of an engine from its pinned requirements, and import the engine in it.

pip takes the build of torch that its index offers, and keeps it for all that follows. Where that is a CUDA build and
there is no GPU, name torch's own index: [bold]PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu[/]. uv is
faster and reads UV_* settings instead of pip's: by itself it may take several GB of a CUDA build where a CPU build is
wanted.

Environments lie in the user's cache, or in $AWQBENCH_ENVIRONMENTS. One that is ready is left alone; one that is
incomplete or outdated is replaced.

Exit status: 0 it is ready, 2 it could not be made: the installer's last lines are shown.

Example: [bold]awqbench env create vllm[/]
"""


@environments.command(help=CREATE)
def create(
    name: Name,
    installer: Annotated[str, typer.Option(help="pip, or uv where it is installed.")] = "pip",
    python: Annotated[
        str | None,
        typer.Option(metavar="PY", help="The interpreter to make it from; by default this one."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="cpu or cuda, where that matters; by default cuda where there is an NVIDIA GPU.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew although it is ready.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """See CREATE."""
    from awqbench import environments as made

    if dry_run:
        _show_plan(made.plan(name, installer, python, variant), as_json)
        return
    try:
        with _progress(name) as watch:
            found = made.create(name, installer, python, variant, force, watch)
    except made.InstallFailed as error:
        for line in error.tail:
            print(f"  {line}", file=sys.stderr)
        raise
    if as_json:
        print(json.dumps(_row(found), indent=2))
    else:
        _show([found], engines_here=False)


@environments.command("list")
def list_(as_json: Json = False) -> None:
    """Show every environment: ready, missing, incomplete or outdated, its versions, its size, what it is for.

    Example: [bold]awqbench env list[/]
    """
    from awqbench.environments import states

    found = states()
    if as_json:
        print(json.dumps([_row(state) for state in found], indent=2))
    else:
        _show(found, engines_here=True)


@environments.command()
def remove(name: Name) -> None:
    """Delete an environment, finished or not.

    Example: [bold]awqbench env remove autoawq[/]
    """
    from awqbench.environments import remove as delete
    from awqbench.environments import state

    folder = state(name).folder
    print(f"removed {folder}" if delete(name) else f"there is no environment {name}")


def _row(found: State) -> dict[str, Any]:
    """What a script wants of an environment."""
    from awqbench.environments import create_command
    from awqbench.environments.interpreter import found_here

    made = found.made
    return {
        "name": found.definition.name,
        "status": found.status,
        "note": found.note,
        "summary": found.definition.summary,
        "kinds": list(found.definition.kinds),
        "here": all(found_here(module.partition(".")[0]) for module in found.definition.modules),
        "folder": str(found.folder),
        "python": str(found.python) if found.status == "ready" else None,
        "variant": found.recipe.variant,
        "python_version": made.python if made else None,
        "installer": made.installer if made else None,
        "versions": made.versions if made else {},
        "packages": made.packages if made else {},
        "bytes": made.bytes if made else None,
        "seconds": made.seconds if made else None,
        "created": made.created if made else None,
        "expected_bytes": found.recipe.bytes,
        "create": create_command(found.definition.name),
    }


def _show(states: list[State], engines_here: bool) -> None:
    """A line per environment, and beneath it what it holds or the command that makes it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    style = {"ready": "green", "missing": "dim", "incomplete": "yellow", "outdated": "yellow"}
    for row in map(_row, states):
        size = row["bytes"] or row["expected_bytes"]
        about = "" if row["bytes"] else "about "
        amount = f"{about}{size / 1e9:.2f} GB" if size else "size unmeasured"
        status = (f"{row['status']:<11}", style[row["status"]])
        console.print(Text.assemble((f"{row['name']:<14}", "bold"), status, amount), soft_wrap=True)
        lines = [row["summary"], f"kinds: {', '.join(row['kinds'])}" if row["kinds"] else "quantizers compared"]
        if row["versions"]:
            held = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
            lines.append(f"{held}; Python {row['python_version']}")
        if engines_here and row["here"] and row["kinds"]:
            lines.append("the Python that runs awqbench has it too, and is used first")
        if row["status"] == "ready":
            lines.append(row["python"])
        else:
            lines.append(f"{row['note'] + ': ' if row['note'] else ''}{row['create']}")
        for line in lines:
            console.print(f"    {line}", markup=False, soft_wrap=True)


def _show_plan(todo: Plan, as_json: bool) -> None:
    if as_json:
        shown = {
            "name": todo.definition.name,
            "variant": todo.recipe.variant,
            "folder": str(todo.folder),
            "installer": todo.installer,
            "requirements": list(todo.recipe.requirements),
            "commands": [list(step.command) for step in todo.steps],
            "modules": list(todo.definition.modules),
            "needs_bytes": todo.needs_bytes,
            "free_bytes": todo.free_bytes,
        }
        print(json.dumps(shown, indent=2))
        return
    print(f"{todo.definition.name} ({todo.recipe.variant}) at {todo.folder}")
    for step in todo.steps:
        print(f"  {shlex.join(step.command)}")
    print(f"  then imported there: {', '.join(todo.definition.modules)}")
    print(f"  disk: {todo.needs_bytes / 1e9:.1f} GB needed while it is made, {todo.free_bytes / 1e9:.1f} GB free")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, str], None]]:
    """A line per step with its time; on a terminal also the installer's last line beneath, with a clock."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    current: list[Any] = ["", time.monotonic()]

    def finish() -> None:
        if current[0]:
            seconds = time.monotonic() - current[1]
            console.print(f"{name}: {current[0]} ({seconds:.0f} s)", markup=False, highlight=False, soft_wrap=True)

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)

        def watch(step: str, line: str) -> None:
            if step != current[0]:
                finish()
                current[:] = [step, time.monotonic()]
            shown = line or step
            progress.update(task, description=f"{name}: {shown}"[: max(20, console.width - 14)])

        yield watch
    finish()
