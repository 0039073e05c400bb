"""`python -m bench [part …]`: run the parts named, or all, and say which targets hold; status 1 if one does not."""

from __future__ import annotations

import argparse
import importlib
import platform
import signal
import sys

from bench.harness import Report, fsync_microseconds

#: Parts in the order they run; each module has a `run(report)`.
PARTS = (
    "peers",
    "bystanders",
    "versori",
    "native",
    "nemesis",
    "voximplant",
    "postgres",
    "testbed",
    "kill",
    "hostile",
    "children",
    "watch",
    "watchers",
    "transactions",
    "backup",
    "console",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"one of: {', '.join(PARTS)} (all)")
    parser.add_argument(
        "--kills", type=int, help="kill: end after so many (50, or without an end if --seconds is given)"
    )
    parser.add_argument("--seconds", type=float, help="kill: end after so long")
    given = parser.parse_args()
    chosen = given.part
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    asked = {"kills": given.kills, "seconds": given.seconds} if given.kills or given.seconds else {}
    # So that the servers of a benchmark that is ended early end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    print(f"Python {platform.python_version()}, {platform.machine()}, a bare fsync of 16 KiB: ", end="")
    print(f"{fsync_microseconds():.0f} µs (median)\n", flush=True)
    for part in chosen or PARTS:
        print(f"== {part}", flush=True)
        importlib.import_module(f"bench.{part}").run(report, **(asked if part == "kill" else {}))
    print(f"\n{report.held} targets hold, {report.missed} do not")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
