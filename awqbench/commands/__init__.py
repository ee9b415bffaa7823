"""The commands that need more than a few options, a file each; `awqbench.cli` collects them."""
