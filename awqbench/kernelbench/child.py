"""`python -m awqbench.kernelbench.child`: the checks in a process that a wrong kernel may take down.

Prints a line of JSON when a check begins and one when it ends. Exit status 75 (EX_TEMPFAIL): the CUDA context is lost;
the checks from `--skip` on can go on in a new process.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from awqbench.kernelbench.ours import our_kernels
from awqbench.kernelbench.runner import carry_out, device_lost, items

LOST = 75


def main(arguments: list[str] | None = None) -> int:
    """Run the items from `--skip` on; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--variants", default="all")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.index is not None:
        torch.cuda.set_device(device)  # streams, graphs and events are of the current device
    work = items(our_kernels(device, given.variants), quick=given.quick, tiny=given.tiny, only=given.only)
    for index in range(given.skip, len(work)):
        kernel, case = work[index]
        say({"begin": index, "of": len(work), "kernel": kernel.name, "check": case.check, "case": str(case)})
        row = carry_out(kernel, case, device)
        say({"row": json.loads(row.json())})
        if row.status == "error" and device_lost(device):
            return LOST
    return 0


def say(message: dict[str, object]) -> None:
    """One line to whoever supervises."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
