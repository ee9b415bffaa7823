"""`awqbench policies list` and `show`: which named policies there are, what they limit, how many items that takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awqbench.commands.options import Json

if TYPE_CHECKING:
    from awqbench.policies import Rules
    from awqbench.spec import GateSpec

policies = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Show the named policies that a run can be judged by."
)

FLIPS = (0.02, 0.05, 0.10)


@policies.command("list")
def list_(as_json: Json = False) -> None:
    """Show every shipped policy in a line.

    Example: [bold]awqbench policies list[/]
    """
    from awqbench.policies import load_policy, shipped_policies

    found = [load_policy(name) for name in shipped_policies()]
    if as_json:
        print(json.dumps([_plain(rules) for rules in found], indent=2))
        return
    width = max(len(rules.name) for rules in found)
    for rules in found:
        print(f"{rules.name:<{width}}  {rules.description}")


@policies.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped policy, or a TOML file with [[gates]].")],
    accuracy: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The reference's accuracy, which relative margins are shares of.")
    ] = 0.7,
    as_json: Json = False,
) -> None:
    """Show a policy's rules, and the items that a limit on right/wrong answers takes.

    That is how many independent items pass the limit with 80 % power when nothing is lost, by the share of answers that
    flip either way. A design effect of clusters multiplies it.

    Example: [bold]awqbench policies show mlperf-99.9[/]
    """
    from awqbench.policies import load_policy

    rules = load_policy(name)
    if as_json:
        print(json.dumps(_plain(rules, accuracy), indent=2))
        return
    print(f"{rules.name}: {rules.description or 'no description'}")
    rows = [[gate.metric, _limit(gate), *(f"{n:,}" for n in items(gate, accuracy))] for gate in rules.gates]
    head = ["metric", "limit", *(f"n at {100 * flips:g} % flips" for flips in FLIPS)]
    wide = [max(len(row[i]) for row in [head, *rows] if i < len(row)) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [
            f"{text:<{width}}" if i < 2 else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(row, wide, strict=False))
        ]
        print("  ".join(cells).rstrip())
    print(f"items for 80 % power at no loss; relative limits are shares of an accuracy of {accuracy:g}")


def items(gate: GateSpec, accuracy: float) -> list[int]:
    """Items for each of FLIPS; none for a limit that is not on right/wrong answers as a whole."""
    from awqbench.stats.power import required_n

    other = any(word in gate.metric for word in ("tokens", "prob", "perplexity", "nats", "bits"))
    answers = gate.metric.startswith(("tasks/", "fairness/")) and not other
    if not answers or gate.attribute or not gate.margin:
        return []
    margin = gate.margin * (accuracy if gate.unit == "relative" else 1.0)
    # At no loss a two-sided limit passes when neither side is missed.
    power = 0.9 if gate.sided == "two" else 0.8
    return [required_n(margin, flips=flips, alpha=gate.alpha, power=power) for flips in FLIPS]


def _limit(gate: GateSpec) -> str:
    sign = "±" if gate.sided == "two" else ""
    text = f"{sign}{100 * gate.margin:g} %" if gate.unit == "relative" else f"{sign}{gate.margin:g}"
    by = f", by {'every attribute' if gate.attribute == '*' else gate.attribute}" if gate.attribute else ""
    return f"{text}{by}{', none shown' if gate.zero_tolerance else ''}"


def _plain(rules: Rules, accuracy: float | None = None) -> dict[str, Any]:
    gates = [gate.model_dump(mode="json", exclude_none=True) for gate in rules.gates]
    if accuracy is not None:
        counted = [dict(zip(map(str, FLIPS), items(gate, accuracy), strict=False)) for gate in rules.gates]
        gates = [{**gate, **({"items_needed": n} if n else {})} for gate, n in zip(gates, counted, strict=True)]
    return {"name": rules.name, "description": rules.description, "gates": gates}
