"""`python -m bench [part …]`: run the parts named, or all, and say which targets hold; status 1 if one does not."""

from __future__ import annotations

import importlib
import platform
import sys

from bench.harness import Report, fsync_microseconds

#: Parts in the order they run; each module has a `run(report)`.
PARTS = ("peers", "versori", "native", "nemesis", "voximplant", "postgres", "testbed")


def main(chosen: list[str]) -> int:
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    report = Report()
    print(f"Python {platform.python_version()}, {platform.machine()}, a bare fsync of 16 KiB: ", end="")
    print(f"{fsync_microseconds():.0f} µs (median)\n", flush=True)
    for part in chosen or PARTS:
        print(f"== {part}", flush=True)
        importlib.import_module(f"bench.{part}").run(report)
    print(f"\n{report.held} targets hold, {report.missed} do not")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
