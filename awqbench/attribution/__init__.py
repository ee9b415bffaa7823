"""Which weights the damage comes from: each linear's share estimated at once, the largest put back and measured."""
