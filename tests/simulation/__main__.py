"""`python -m tests.simulation`: tell stories for a minute; with a seed, tell that one again and show what happened."""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulation.plants import PLANTS
from tests.simulation.seeds import run, run_in_processes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="tell this story alone, with all its steps")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--stories", type=int, help="so many stories (as many as the time allows)")
    parser.add_argument("--seconds", type=float, help="for so long (60, or without an end if --stories is given)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="in so many processes (all cores)")
    parser.add_argument(
        "--plant", choices=sorted(PLANTS), help="with this fault in the engine, to see that it is found"
    )
    given = parser.parse_args()
    if given.seed is not None:
        outcome = run([given.seed], given.plant)
        if outcome.failure is not None:
            print(outcome.failure.trace)
    else:
        seconds = 60.0 if given.seconds is None and given.stories is None else given.seconds
        outcome = run_in_processes(given.processes, given.first, given.stories, given.plant, seconds)
    print(f"{outcome.stories:,} stories in {outcome.seconds:.1f} s: ", end="")
    if outcome.failure is None:
        print("every promise held")
        return 0
    seed = outcome.failure.seed
    again = f"python -m tests.simulation {seed}" + (f" --plant {given.plant}" if given.plant else "")
    print(f"seed {seed} broke one; `{again}` tells it alone\n{outcome.failure.why}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
