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

import groups
import numpy as np
import single
from rates import Rate
from tables import into, markdown

Study = Callable[[np.random.Generator, int], Iterator[Rate]]
STUDIES: dict[str, Study] = {
    "mcnemar": single.study_mcnemar,
    "flips": single.study_flips,
    "means": single.study_means,
    "equivalence": single.study_equivalence,
    "bootstrap": single.study_bootstrap,
    "sign flip": single.study_sign_flip,
    "difference-in-differences": groups.study_did,
    "worst group": groups.study_worst_group,
    "families": groups.study_families,
    "ratio of medians": groups.study_medians,
}


def main() -> int:
    """Run the studies; 1 when a promise is broken."""
    asked = _arguments()
    rates: list[Rate] = []
    seconds: dict[str, float] = {}
    for name in asked.only or STUDIES:
        start = time.process_time()
        rates += STUDIES[name](np.random.default_rng([asked.seed, zlib.crc32(name.encode())]), asked.runs)
        seconds[name] = round(time.process_time() - start, 1)
        print(f"{name}: {seconds[name]} s of processor time", file=sys.stderr, flush=True)
    counts = len(rates)
    text = markdown(rates)
    if asked.json:
        record = {"runs": asked.runs, "seed": asked.seed, "seconds": seconds, "numpy": np.__version__}
        data = [
            {**asdict(rate), "share": rate.share, "limits": rate.limits(counts), "broken": rate.broken(counts)}
            for rate in rates
        ]
        asked.json.write_text(json.dumps({**record, "rates": data}, indent=1) + "\n", encoding="utf-8")
    if asked.into:
        into(asked.into, text)
    print(text)
    return int(any(rate.broken(counts) for rate in rates))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated comparisons per scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STUDIES, metavar="STUDY", help=f"of: {', '.join(STUDIES)}")
    parser.add_argument("--json", type=Path, help="file for every count")
    parser.add_argument("--into", type=Path, help="Markdown page whose measured tables are replaced")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
