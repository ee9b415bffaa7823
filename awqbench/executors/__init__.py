"""Runs the jobs of a plan. An executor knows neither backends nor suites."""
