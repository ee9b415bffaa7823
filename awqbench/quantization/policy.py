"""Which linears are quantized: those the layout can hold. The others are refused before any work, or kept."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from awqbench.errors import UserError
from awqbench.formats.layouts import Layout, Scheme

COMMON_GROUP_SIZES = (16, 32, 64, 128)


def cannot_hold(linears: Mapping[str, nn.Linear], layout: Layout, scheme: Scheme) -> list[str]:
    """The linears that the layout cannot hold in this scheme."""
    return [
        name for name, linear in linears.items() if not layout.fits(linear.out_features, linear.in_features, scheme)
    ]


def refuse_indivisible(linears: Mapping[str, nn.Linear], layout: Layout, scheme: Scheme) -> None:
    """Raise UserError, in one line, if the layout cannot hold one of the linears."""
    names = cannot_hold(linears, layout, scheme)
    if not names:
        return
    others = [Scheme(scheme.bits, size, scheme.symmetric) for size in COMMON_GROUP_SIZES]
    fitting = [str(other.group_size) for other in others if not cannot_hold(linears, layout, other)]
    allowed = f"group size {', '.join(fitting)} or " if fitting else "no common group size fits all; "
    shown = [f"{name} ({linears[name].in_features} to {linears[name].out_features})" for name in names[:3]]
    shown += ["..."] if names[3:] else []
    raise UserError(
        f"group size {scheme.group_size} does not fit {len(names)} of {len(linears)} linears: {', '.join(shown)};"
        f" {layout.name} wants whole groups of inputs and whole words of outputs"
        f' (allowed: {allowed}indivisible = "keep")'
    )
