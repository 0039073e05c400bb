"""`kvasir serve` that has every body, form and message read by the process beside it, however short.

python -m tests.support.all_aside serve …
"""

from __future__ import annotations

import sys

from kvasir import jsontext
from kvasir.beside import process
from kvasir.cli import main
from kvasir.dialects.voximplant import commands, forms

PROGRAM = (sys.executable, "-m", "tests.support.all_aside")

if __name__ == "__main__":
    jsontext.LIGHT_BYTES = jsontext.LIGHT_TOKENS = process.NEAR_BYTES = -1
    forms.LIGHT_BYTES = commands.LIGHT_CHARACTERS = -1
    main()
