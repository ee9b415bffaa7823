"""The model card of a checkpoint, its README.md: what was done to the model, in numbers that were measured.

Written by plain string formatting, because the quantizer runs where torch, transformers and little else is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

CARD = "README.md"
_BEGIN, _END = "<!-- awqbench results: begin -->", "<!-- awqbench results: end -->"
_NOT_MEASURED = "Not measured yet. `awqbench audit CHECKPOINT --reference MODEL` measures this checkpoint against its\n\
original; `awqbench card CHECKPOINT --run RUN --backend NAME` puts what was measured here."
_METHODS = {
    "rtn": "round to nearest",
    "awq": "activation-aware weight quantization (AWQ)",
    "gptq": "error-compensated rounding (GPTQ)",
    "awq+gptq": "AWQ scales with error-compensated rounding (GPTQ)",
}
_WORST = 10


def model_card(recipe: Mapping[str, Any], config: Mapping[str, Any], results: str | None = None) -> str:
    """README.md of a checkpoint whose quantize.json holds `recipe` and whose config.json holds `config`.

    `results` is Markdown about measured quality, see `card_results`; without it the card says that nothing was
    measured. The same input gives the same text.
    """
    parts = [
        _front_matter(recipe, config),
        f"# {_title(recipe, config)}",
        _how(recipe, config),
        "## Calibration\n\n" + _calibration(recipe.get("calibration")),
        "## Kept in full precision\n\n" + _kept(recipe, config),
        "## Where the error is\n\n" + _worst(recipe),
        "## Measured results\n\n" + _marked(results),
        "## How to load it\n\n" + _loading(recipe),
    ]
    if recipe.get("warnings"):
        parts.insert(-2, "## Warnings\n\n" + "\n".join(f"- {line}" for line in recipe["warnings"]))
    return "\n\n".join(parts) + "\n"


def with_results(card: str, results: str) -> str:
    """A card with its measured results replaced, or put at its end where it has no place for them yet."""
    before, begin, rest = card.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        return f"{before}{_marked(results)}{after}"
    return f"{card.rstrip()}\n\n## Measured results\n\n{_marked(results)}\n".lstrip()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; text cells are left-aligned, all others right-aligned."""
    lines = [list(map(str, row)) for row in rows]
    marks = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in [list(headings), marks, *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _marked(results: str | None) -> str:
    return f"{_BEGIN}\n{results or _NOT_MEASURED}\n{_END}"


def _front_matter(recipe: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    made = recipe.get("recipe") or {}
    data = ModelCardData(
        base_model=_base_model(recipe, config),
        base_model_relation="quantized",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["awqbench", "quantized", f"{_bits(recipe)}-bit", str(made.get("method")), str(recipe.get("format"))],
        quantization={
            "method": made.get("method"), "bits": _bits(recipe), "group_size": recipe.get("group_size"),
            "symmetric": bool(made.get("symmetric")), "format": recipe.get("format"),
        },
    )  # fmt: skip
    return f"---\n{data.to_yaml().strip()}\n---"


def _base_model(recipe: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The original's name, where it's a name on the hub; a path of the machine that quantized it tells nobody."""
    name = str(recipe.get("model") or config.get("_name_or_path") or "")
    return name if name.count("/") == 1 and not name.startswith(("/", ".", "~")) else None


def _title(recipe: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    name = _base_model(recipe, config) or (config.get("architectures") or ["A language model"])[0]
    return f"{name}, {_bits(recipe)}-bit weights"


def _bits(recipe: Mapping[str, Any]) -> Any:
    return recipe.get("effective_bits") or (recipe.get("recipe") or {}).get("bits")


def _how(recipe: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    made = recipe.get("recipe") or {}
    method = str(made.get("method"))
    group = recipe.get("group_size")
    scales = "a scale per output channel" if group == -1 else f"a scale per {group} weights"
    kind = "symmetric" if made.get("symmetric") else "asymmetric"
    linears = recipe.get("linears") or []
    weights = sum(row["shape"][0] * row["shape"][1] for row in linears if "shape" in row)
    lines = [
        f"The weights of {len(linears)} linear layers ({weights:,} weights) of a {config.get('model_type')} model, "
        f"quantized by {_METHODS.get(method, method)} to {_bits(recipe)} bits with {scales}, {kind}, and stored in the "
        f"{recipe.get('format')} format. Activations are not quantized."
    ]
    mixed = recipe.get("mixed")
    if not mixed and weights:
        size = _stored_bits(recipe, linears)
        lines.append(f"With scales and zero points that is {size / weights:.3f} bits per weight, {size / 8e6:,.1f} MB.")
    if mixed:
        lines += [_mixed(mixed)]
    rows = [(key, value) for key, value in made.items() if value is not None]
    return "\n\n".join([*lines, table(("recipe", "value"), rows)])


def _stored_bits(recipe: Mapping[str, Any], linears: Iterable[Mapping[str, Any]]) -> int:
    """Bits that the linears take in the file, by the layout's arithmetic."""
    made = recipe.get("recipe") or {}
    packed = str(recipe.get("format")).startswith("autoawq")
    bits = 4 if packed else _bits(recipe)
    points = bits if packed or not made.get("symmetric") else 0
    group, total = recipe.get("group_size") or -1, 0
    for out, inputs in (row["shape"] for row in linears if "shape" in row):
        total += out * inputs * bits + out * (1 if group == -1 else inputs // group) * (16 + points)
    return int(total)


def _calibration(calibration: Mapping[str, Any] | None) -> str:
    if not calibration:
        return "No calibration text was used."
    return table(("calibration", "value"), [(key, value) for key, value in calibration.items() if value is not None])


def _kept(recipe: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    said = config.get("quantization_config") or {}
    names = list(said.get("modules_to_not_convert") or said.get("ignore") or recipe.get("kept") or [])
    always = "Embeddings and norms are not quantized."
    if not names:
        return f"{always} No linear layer was kept."
    shown = ", ".join(f"`{name}`" for name in names[:20])
    more = f" and {len(names) - 20} more (config.json lists them)" if len(names) > 20 else ""
    return f"{always} Nor are these linear layers: {shown}{more}."


def _mixed(mixed: Mapping[str, Any]) -> str:
    """Which linears have more bits, and what that costs and buys."""
    rows = [
        (
            f"`{row['name']}`",
            _number(row.get("block_error")),
            _share(row.get("share")),
            f"{row.get('added_bytes', 0):,}",
        )
        for row in mixed["linears"]
    ]
    return (
        f"Mixed precision: linears that would hurt most are kept at {mixed['keep_bits']} bits, {len(rows)} of them, "
        f"which makes {mixed['bits_per_weight']:.3f} bits per weight of {mixed['bits_per_weight_before']:.3f}.\n\n"
        + table(("linear", "error of its block, if rounded", "share of all such errors", "bytes it costs"), rows)
    )


def _worst(recipe: Mapping[str, Any]) -> str:
    """The linears that carry most of the error, before and after the method did better than rounding."""
    # Rows of linears that mixed precision raised tell the error that they would have had.
    raised = {row["name"] for row in (recipe.get("mixed") or {}).get("linears") or ()}
    linears = [row for row in recipe.get("linears") or () if row["name"] not in raised]
    key = "output_error" if any(row.get("output_error") is not None for row in linears) else "weight_error"
    measured = [row for row in linears if row.get(key) is not None]
    if not measured:
        return "No error was measured."
    chosen = sorted(measured, key=lambda row: -(row.get("share") or row[key]))[:_WORST]
    what = "output on the calibration text" if key == "output_error" else "weight"
    rows = [
        (f"`{row['name']}`", row.get("bits", ""), row.get("tokens") or "", _number(row.get(f"{key}_rtn")),
         _number(row[key]), _share(row.get("share")))
        for row in chosen
    ]  # fmt: skip
    headings = ("linear", "bits", "tokens seen", "error, nearest rounding", "error", "share of all")
    intro = f"Relative error of a linear's {what}; the {len(chosen)} largest of {len(measured)}, by share of the total."
    return f"{intro}\n\n{table(headings, rows)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


def _loading(recipe: Mapping[str, Any]) -> str:
    known = {
        "compressed-tensors": "`transformers` (with the package `compressed-tensors`) and `vllm` load this folder as it"
        " is:",
        "autoawq": "`vllm` loads this folder as it is, `transformers` with the package `gptqmodel`:",
    }
    unknown = "`transformers` and `vllm` load this folder where they know its format:"
    intro = known.get(str(recipe.get("format")), unknown)
    return (
        f"{intro}\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "model = AutoModelForCausalLM.from_pretrained(FOLDER)\ntokenizer = AutoTokenizer.from_pretrained(FOLDER)\n```"
        "\n\n```sh\nvllm serve FOLDER\n```\n\nThe quantizer's own engine needs neither package:\n\n```python\n"
        "from awqbench.formats.load import load_quantized\n\nmodel = load_quantized(FOLDER)\n```\n\n"
        "For llama.cpp: `awqbench export FOLDER --to gguf --out FILE`."
    )
