"""A run directory to read: HTML for people, Markdown for a pull request, JUnit for CI, YAML for the hub."""

from awqbench.report.render import render

__all__ = ["render"]
