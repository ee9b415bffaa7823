"""An attribution in words: what is measured, what came back, what to do about it. No torch."""

from __future__ import annotations

import shlex

from awqbench.record.attribution import Amount, Attribution, Recovery
from awqbench.report import format as fmt


def described(found: Attribution) -> str:
    """What the damage is."""
    measure = found.measure
    if measure["name"] == "kl":
        return f"KL(reference || checkpoint) on {measure['text']}@{measure['window']}"
    group = f", {measure['attribute']} = {measure['group']} less the others" if measure["group"] else ""
    return f"increase of the loss {measure['name']}{group}"


def keep_line(found: Attribution) -> str:
    """The options for `awqbench quantize`; empty where nothing was shown to help."""
    return "awqbench quantize ... " + shlex.join(f"--keep={name}" for name in found.keep) if found.keep else ""


def recovered(measured: Recovery) -> str:
    """A measured share with its interval, or the amount where a share means nothing."""
    if measured.share is None or measured.share_low is None or measured.share_high is None:
        return amount(measured)
    ends = ", ".join(f"{100 * end:.1f}" for end in (measured.share_low, measured.share_high))
    return f"{100 * measured.share:.1f} % [{ends}]".replace("-", fmt.MINUS)


def amount(damage: Amount) -> str:
    """A figure with its interval."""
    low, high = fmt.significant(damage.ci_low, 3), fmt.significant(damage.ci_high, 3)
    return f"{fmt.significant(damage.value, 3)} [{low}, {high}]"
