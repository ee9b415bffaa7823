"""Are the 4-bit kernels right, and how fast are they? `awqbench kernels check` and `awqbench kernels bench`.

Everything here imports with torch, numpy and typer alone: machines with a GPU often have little else.
"""
