"""The run directory: the product of a run, and the only thing reports and verdicts are made from."""
