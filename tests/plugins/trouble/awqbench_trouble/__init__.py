"""A backend kind that fails on demand, installed as any other plugin is."""

from awqbench.backends.kind import Kind

KIND = Kind(
    "trouble",
    "awqbench_trouble.engine:Trouble",
    "a table of bigrams that fails on demand",
    weights="model",
    options={"how": "what goes wrong"},
)
