"""The Dockerfile as tests read it."""

from __future__ import annotations

import re

from tests.support.packages import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """What follows an instruction of the last stage of the Dockerfile."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", joined[joined.rindex("\nFROM ") :], re.MULTILINE)
