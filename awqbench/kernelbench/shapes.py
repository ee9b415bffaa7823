"""The weights that are checked and timed: layers of models, shards of layers, and odd sizes."""

from __future__ import annotations

from awqbench.errors import UserError, unknown_choice
from awqbench.kernelbench.problem import Shape

# Fused linears as a decode step multiplies by them: (n, k).
MODELS: dict[str, dict[str, tuple[int, int]]] = {
    "llama3-8b": {"gate_up": (28672, 4096), "down": (4096, 14336), "qkv": (6144, 4096), "o": (4096, 4096)},
    "llama3-70b": {"gate_up": (57344, 8192), "down": (8192, 28672), "qkv": (10240, 8192), "o": (8192, 8192)},
    "llama2-7b": {"gate_up": (22016, 4096), "down": (4096, 11008), "qkv": (12288, 4096), "o": (4096, 4096)},
}
# What tensor parallelism and unusual models leave: widths that no power of two divides far.
SHARDS = ((4096, 3584), (4096, 7392), (10944, 2048), (2048, 10944), (1408, 2048), (4096, 2752))
ODD_N = (8, 24, 72, 1000)
BATCHES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257, 1000)
GROUPS = (32, 64, 128)


def layer_name(shape: Shape) -> str:
    """`llama3-8b gate_up`, or N x K where no model of ours has it."""
    for model, layers in MODELS.items():
        for layer, size in layers.items():
            if size == (shape.n, shape.k):
                return f"{model} {layer}"
    return f"{shape.n}x{shape.k}"


def parse_shapes(text: str, group: int) -> list[Shape]:
    """`llama3-8b,1000x4096` -> shapes; group 0 means per channel. UserError for anything else."""
    sizes: list[tuple[int, int]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        n, cross, k = part.partition("x")
        if part in MODELS:
            sizes += MODELS[part].values()
        elif cross and n.isdigit() and k.isdigit() and int(n) and int(k):
            sizes.append((int(n), int(k)))
        else:
            raise unknown_choice("shape", part, [*MODELS, "NxK"])
    shapes = []
    for rows, columns in dict.fromkeys(sizes):
        if columns % (group or columns):
            raise UserError(
                f"{rows}x{columns} does not divide into groups of {group} (allowed: a divisor of {columns}, or 0)"
            )
        shapes.append(Shape(rows, columns, group or columns))
    return shapes


def fitting_groups(k: int) -> list[int]:
    """The group sizes that a width allows, per channel included."""
    return [group for group in (*GROUPS, k) if k % group == 0]
