"""What to do with linears that the packed layout cannot hold: refuse before any work, or keep them as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from awqbench.errors import UserError

COMMON_GROUP_SIZES = (16, 32, 64, 128)
OUTPUT_MULTIPLE = 8  # eight 4-bit codes make one int32 of the AutoAWQ layout


def divides(linear: nn.Linear, group_size: int) -> bool:
    """Whether the packed layout can hold the linear at this group size."""
    return linear.in_features % group_size == 0 and linear.out_features % OUTPUT_MULTIPLE == 0


def cannot_hold(linears: Mapping[str, nn.Linear], group_size: int) -> list[str]:
    """The linears that the packed layout cannot hold."""
    return [name for name, linear in linears.items() if not divides(linear, group_size)]


def refuse_indivisible(linears: Mapping[str, nn.Linear], group_size: int) -> None:
    """Raise UserError, in one line, if any linear cannot be packed at this group size."""
    names = cannot_hold(linears, group_size)
    if not names:
        return
    fitting = [size for size in COMMON_GROUP_SIZES if not cannot_hold(linears, size)]
    allowed = f"group size {', '.join(map(str, fitting))} or " if fitting else "no common group size fits all; "
    shown = [f"{name} ({linears[name].in_features} to {linears[name].out_features})" for name in names[:3]]
    shown += ["..."] if names[3:] else []
    raise UserError(
        f"group size {group_size} does not fit {len(names)} of {len(linears)} linears: {', '.join(shown)};"
        f' inputs must divide by it and outputs by {OUTPUT_MULTIPLE} (allowed: {allowed}indivisible = "keep")'
    )
