"""What the user says about an architecture where watching and proving is not enough: a TOML file.

```toml
[[group]]                                  # names are relative to a block and hold for every block that has them
readers = ["mlp.fc_in", "re:mlp\\.gate.*"]   # linears, and routers, that read one tensor
absorber = "ln_2"                          # the module that is divided
form = "weight"                            # or "1 + weight" (Gemma's norms), or "rows" (of a linear)
proved = true                              # false takes your word for it

[skip]
linears = ["re:.*router.*", "lm_head"]     # stay in full precision
```

A name stands for itself and for everything that ends in it; `re:` begins a regular expression for the whole name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from awqbench.errors import UserError, unknown_choice
from awqbench.quantization.absorb import Form
from awqbench.quantization.patterns import matches, patterns
from awqbench.quantization.trace import Reading


@dataclass(frozen=True, slots=True)
class GroupOverride:
    """Linears that read one tensor, and the operation that absorbs its inverse scale."""

    readers: tuple[str, ...]
    absorber: str
    form: Form
    proved: bool = True

    def reads(self, name: str) -> bool:
        """Whether the module called `name`, relative to its block, is one of the readers."""
        return any(matches(pattern, name) for pattern in self.readers)


@dataclass(frozen=True, slots=True)
class Overrides:
    """A whole file; empty by default."""

    groups: tuple[GroupOverride, ...] = ()
    skip: tuple[str, ...] = ()

    def skips(self, name: str) -> bool:
        """Whether the linear with this full name is to stay in full precision."""
        return any(matches(pattern, name) for pattern in self.skip)

    def check(self, linears: Iterable[str], stack: str) -> None:
        """Raise UserError for a pattern that matches none of the model's linears, full names, in its blocks `stack`."""
        names = list(linears)
        block = re.compile(rf"{re.escape(stack)}\.\d+\.")
        inside = {block.sub("", name, count=1) for name in names if block.match(name)}
        wanted = [(pattern, names) for pattern in self.skip]
        wanted += [(group.readers[0], sorted(inside)) for group in self.groups]
        for pattern, found in wanted:
            if not any(matches(pattern, name) for name in found):
                raise UserError(f"overrides: {pattern!r} matches no linear (allowed: names such as {found[0]!r})")

    def regroup(self, readings: Sequence[Reading]) -> list[tuple[Reading, GroupOverride | None]]:
        """What was seen to read one tensor, with the readers of each override taken out and put together."""
        rest = [Reading(list(one.whole), list(one.routed), one.makers) for one in readings]
        asked: list[tuple[Reading, GroupOverride | None]] = []
        for group in self.groups:
            taken = Reading()
            for one in rest:
                taken.whole += [name for name in one.whole if group.reads(name)]
                taken.routed += [names for names in one.routed if all(map(group.reads, names))]
                one.whole = [name for name in one.whole if name not in taken.whole]
                one.routed = [names for names in one.routed if names not in taken.routed]
            if taken.whole or taken.routed:
                asked.append((taken, group))
        return [*asked, *((one, None) for one in rest if one.whole or one.routed)]


def read_overrides(path: Path | None) -> Overrides:
    """Read and check a file; no path gives no overrides. Raises UserError naming the key or value that is wrong."""
    if path is None:
        return Overrides()
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid TOML: {error}") from error
    try:
        return _parse(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _parse(content: dict[str, Any]) -> Overrides:
    _keys("", content, ("group", "skip"))
    groups, skip = content.get("group", []), content.get("skip", {})
    if not isinstance(groups, list) or not all(isinstance(each, dict) for each in (*groups, skip)):
        raise UserError("group and skip are tables (allowed: [[group]] and [skip])")
    _keys("skip.", skip, ("linears",))
    return Overrides(tuple(map(_group, groups)), patterns("skip.linears", skip.get("linears", [])))


def _group(table: dict[str, Any]) -> GroupOverride:
    _keys("group.", table, ("readers", "absorber", "form", "proved"))
    if missing := [key for key in ("readers", "absorber", "form") if not table.get(key)]:
        raise UserError(f"a [[group]] lacks {missing[0]} (allowed: readers, absorber and form, and proved)")
    if table["form"] not in get_args(Form):
        raise unknown_choice("form", table["form"], get_args(Form))
    for key, kind in (("absorber", str), ("proved", bool)):
        if not isinstance(table.get(key, True if kind is bool else ""), kind):
            raise UserError(f"group.{key} is {table[key]!r} (allowed: a {'name' if kind is str else 'boolean'})")
    readers = patterns("group.readers", table["readers"])
    return GroupOverride(readers, table["absorber"], table["form"], table.get("proved", True))


def _keys(where: str, table: dict[str, Any], allowed: Sequence[str]) -> None:
    for key in table:
        if key not in allowed:
            raise unknown_choice("key", f"{where}{key}", (f"{where}{name}" for name in allowed))
