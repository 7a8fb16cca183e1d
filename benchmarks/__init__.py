"""Lamson measured beside its peers. `benchmarks/run` makes what it needs and prints the table; docs/speed.md explains it."""
