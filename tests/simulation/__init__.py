"""A deterministic simulation of the SQLite engine on a disk that fails: `python -m tests.simulation` runs it."""
