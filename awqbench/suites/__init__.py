"""A suite turns items into token ids and log-probabilities into per-item rows; it knows no backend."""

from awqbench.suites.base import Context, Measurement, measure

__all__ = ["Context", "Measurement", "measure"]
