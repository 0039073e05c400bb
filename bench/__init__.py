"""Measures Kvasir against floors and peers of the same run, on the same machine: `make bench`, docs/benchmarks.md."""
