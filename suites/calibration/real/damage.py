"""Copies of a model with a planted defect: what a gate must find, or, for the unchanged copy, must not.

Each is a Hugging Face folder in float32 with its tokenizer; damage.json says what was done and how large it is.

  damage.py demo --out copies/layer layer --layer 12
  damage.py demo --out copies/head head --layer 12 --head 3
  damage.py demo --out copies/group group --attribute religion --group Muslim --how worst
  damage.py demo --out copies/same same
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from defects import noise, round_layer, shift_rows, zero_head  # noqa: E402
from subgroup import own_rows, worst_direction  # noqa: E402

from awqbench.errors import UserError  # noqa: E402
from awqbench.sources.models import load_tokenizer, resolve_model  # noqa: E402
from awqbench.suites.fairness_sets import load_set  # noqa: E402

RECORD = "damage.json"


def damage(source: str, out: Path, asked: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Write the damaged copy and return its record. Raises UserError where the defect does not fit the model."""
    folder = resolve_model(source).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = load_tokenizer(folder)
    kind = asked["defect"]
    if kind == "layer":
        found: dict[str, Any] = {"errors": round_layer(model, asked["layer"], asked["bits"], asked["group_size"])}
    elif kind == "head":
        found = zero_head(model, asked["layer"], asked["head"])
    elif kind == "group":
        found = _harm_group(model, tokenizer, asked, seed)
    else:
        found = {}
    record = {"source": source, "seed": seed, **asked, **found}
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _harm_group(model: Any, tokenizer: Any, asked: dict[str, Any], seed: int) -> dict[str, Any]:
    """Move the group's own tokens; the worst way is learnt from every second of its clusters."""
    items = load_set(asked["set"]).items
    rows = own_rows(items, tokenizer, asked["attribute"], asked["group"])
    losses: list[float] = []
    if asked["how"] == "noise":
        direction = noise(model, rows, seed)
    else:
        learnt = set(sorted({item.cluster for item in items})[seed % 2 :: 2])
        mine = [i for i in items if i.groups.get(asked["attribute"]) == asked["group"] and i.cluster in learnt]
        direction, losses = worst_direction(model, tokenizer, mine, rows, asked["found_at"] or asked["size"])
    shift_rows(model, rows, direction, asked["size"])
    tokens = [tokenizer.decode([row]) for row in rows]
    return {"rows": rows, "tokens": tokens, "log-odds against the right answer, by step": losses}


def main() -> None:
    """Parse, damage, say what was done."""
    asked = vars(_arguments())
    source, out, seed = asked.pop("model"), asked.pop("out"), asked.pop("seed")
    torch.set_num_threads(asked.pop("threads"))
    try:
        record = damage(source, out, asked, seed)
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(record, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or a packaged name: demo")
    parser.add_argument("--out", type=Path, required=True, help="folder of the damaged copy")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise, and of the clusters the worst way is learnt on"
    )
    parser.add_argument("--threads", type=int, default=1)
    kinds = parser.add_subparsers(dest="defect", required=True, metavar="DEFECT")
    layer = kinds.add_parser("layer", help="one decoder layer's linears rounded")
    layer.add_argument("--layer", type=int, required=True)
    layer.add_argument("--bits", type=int, default=2)
    layer.add_argument("--group-size", type=int, default=64)
    head = kinds.add_parser("head", help="one attention head zeroed")
    head.add_argument("--layer", type=int, required=True)
    head.add_argument("--head", type=int, required=True)
    group = kinds.add_parser("group", help="the input embeddings of one group's own tokens moved")
    group.add_argument("--set", default="counterfactual", help="a fairness set, NAME or NAME:FOLDER")
    group.add_argument("--attribute", required=True)
    group.add_argument("--group", required=True)
    group.add_argument("--how", choices=("noise", "worst"), default="noise")
    group.add_argument("--size", type=float, default=1.0, help="length of the shift over the row's own norm")
    group.add_argument("--found-at", type=float, help="size at which the worst direction is sought, by default --size")
    kinds.add_parser("same", help="nothing: an unchanged copy")
    return parser.parse_args()


if __name__ == "__main__":
    main()
