"""Are the tests of awqbench.stats calibrated? Simulated comparisons of identical models, and planted losses.

Every rate stands beside the binomial limit of what is promised, shared out over all rates counted. docs/statistics.md
has the tables: `python suites/calibration/simulate.py --runs 2000 --seed 0 --json OUT --into docs/statistics.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gates
import groups
import numpy as np
import power
import single
from page import into, markdown
from rates import Rate

from awqbench.record.files import write_atomic

Study = Callable[[np.random.Generator, int], Iterator[Rate]]
STUDIES: dict[str, Study] = {
    "mcnemar": single.study_mcnemar,
    "flips": single.study_flips,
    "means": single.study_means,
    "batches": single.study_batches,
    "documents": single.study_documents,
    "equivalence": single.study_equivalence,
    "bootstrap": single.study_bootstrap,
    "sign flip": single.study_sign_flip,
    "difference-in-differences": groups.study_did,
    "worst group": groups.study_worst_group,
    "simultaneous intervals": groups.study_simultaneous,
    "families": groups.study_families,
    "median": groups.study_median,
    "ratio of medians": groups.study_medians,
    "power": power.study_power,
    "gate": gates.study_gate,
    "gate, planted losses": gates.study_planted,
}


def main() -> int:
    """Run the studies that OUT does not hold yet; 1 when a promise is broken that the page does not name as a limit."""
    asked = _arguments()
    done = _load(asked.json, {"runs": asked.runs, "seed": asked.seed, "numpy": np.__version__})
    wanted = list(asked.only or STUDIES)
    for name in wanted:
        if name in done["studies"]:
            continue
        start = time.process_time()
        rng = np.random.default_rng([asked.seed, zlib.crc32(name.encode())])  # the same whatever else is run
        rates = [asdict(rate) for rate in STUDIES[name](rng, asked.runs)]
        done["studies"][name] = {"cpu_s": round(time.process_time() - start, 1), "rates": rates}
        print(f"{name}: {done['studies'][name]['cpu_s']} s of processor time", file=sys.stderr, flush=True)
        if asked.json:
            write_atomic(asked.json, json.dumps(done, indent=1) + "\n")
    rates = [Rate(**rate) for name in wanted for rate in done["studies"][name]["rates"]]
    text = markdown(rates)
    if asked.into:
        into(asked.into, text)
    print(text)
    return int(any(rate.broken(len(rates)) and not rate.known for rate in rates))


def _load(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    if path and path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {name: found.get(name) for name in settings} != settings:
            raise SystemExit(f"{path} was made with other settings than {settings}: name another file")
        return found
    return {**settings, "studies": {}}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated comparisons per scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STUDIES, metavar="STUDY", help=f"of: {', '.join(STUDIES)}")
    parser.add_argument("--json", type=Path, help="file for every count; studies that it holds are not run again")
    parser.add_argument("--into", type=Path, help="Markdown page whose measured tables are replaced")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
