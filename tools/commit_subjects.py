"""Finds commits whose subject is not `area: verb object` in at most 72 characters: `-m tools.commit_subjects`.

It looks at those since the last tag, or with no tag since the rule began. Where the history is not there, in a shallow
clone or an unpacked archive, it says so and finds nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 72
#: No commit before this one followed the rule.
FIRST = "house: move modules into folders"

#: An area is a folder or a topic; "verb object" begins in lower case, has two words and does not end in a full stop.
_FORM = re.compile(r"[a-z][a-z0-9_./-]*: [a-z]\S* \S(.*[^\s.])?")


def fault(subject: str) -> str | None:
    """What is wrong with a subject; None if nothing is."""
    if len(subject) > LONGEST:
        return f"{len(subject)} characters, not at most {LONGEST}"
    return None if _FORM.fullmatch(subject) else "not `area: verb object`"


def subjects(root: Path) -> list[str] | None:
    """The subjects that have to follow the rule, newest first; None where the history cannot be read."""
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel").strip()) != root:
            return None  # an unpacked archive inside somebody else's repository
        if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
            return None
        tag = _git(root, "tag", "--merged", "HEAD", "--sort=-creatordate").split("\n")[0]
        log = _git(root, "log", "--no-merges", "--format=%s", f"{tag}..HEAD" if tag else "HEAD").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    if tag:
        return log
    return log[: log.index(FIRST) + 1] if FIRST in log else None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> int:
    checked = subjects(ROOT)
    if checked is None:
        print("commit subjects: not checked, since the history is not available")
        return 0
    faults = [f"{subject!r}: {wrong}" for subject in checked if (wrong := fault(subject))]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
