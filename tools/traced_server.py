"""`kvasir` with a record of which of our modules run. A seam of `tools.request_path`; the product knows nothing of it.

Standard input takes commands, one a line: "begin" forgets what was recorded, "end" writes the names of the modules
that have run since, in the order of their first call, as a JSON array to standard output. What the server itself
prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType

import kvasir
from kvasir.cli import main

ROOT = Path(kvasir.__file__).parent

_recorded: dict[str, None] = {}
_modules: dict[str, str | None] = {}


def _module_of(file: str) -> str | None:
    """`…/kvasir/store/store.py` -> "store.store"; None for a file that is not ours."""
    path = Path(file)
    if not path.is_relative_to(ROOT):
        return None
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") or "kvasir"


def _record(frame: FrameType, event: str, _: object) -> None:
    if event != "call":
        return
    file = frame.f_code.co_filename
    if file not in _modules:
        _modules[file] = _module_of(file)
    module = _modules[file]
    if module is not None:
        _recorded.setdefault(module)


def _obey(answers: int) -> None:
    for line in sys.stdin:
        if line.strip() == "begin":
            _recorded.clear()
        os.write(answers, json.dumps(list(_recorded)).encode() + b"\n")


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=_obey, args=(answers,), daemon=True).start()
    # From here on: the thread above is not traced, the event loop's and those it starts are.
    threading.setprofile(_record)
    sys.setprofile(_record)
    main()
