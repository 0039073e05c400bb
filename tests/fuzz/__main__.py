"""Fuzzes a parser for as long as asked: `nice -n 19 python -m tests.fuzz NAME [DIRECTORY] [-max_total_time=120 …]`.

What it learns goes to DIRECTORY, if given, where a later run goes on; an input that breaks a promise goes to the
working directory. The options are those of libFuzzer. Needs atheris, which exists for Linux on x86-64.
"""

from __future__ import annotations

import importlib
import sys
import tempfile

import atheris

from tests.fuzz import NAMES, SEEDS

#: Whose code is watched, so that inputs are found that lead to new places in it. More would take long to prepare.
WATCHED = {
    "bodies": ["kvasir.jsontext", "kvasir.dialects.versori", "kvasir.dialects.native"],
    "cursors": ["kvasir.dialects.versori.cursor", "kvasir.dialects.voximplant.parameters", "kvasir.dialects.native"],
    "dumps": ["kvasir.transfer", "kvasir.keys"],
    "forms": ["kvasir.dialects.voximplant", "kvasir.jsontext", "python_multipart"],
    "http1": ["kvasir.listeners.http"],
    "http2": ["kvasir.listeners.http", "h2", "hpack", "hyperframe"],
    "jsonpath": ["kvasir.dialects.nemesis.jsonpath", "kvasir.dialects.nemesis.json_pointer", "jsonpath"],
    "keys": ["kvasir.keys", "kvasir.dialects.versori", "kvasir.dialects.native"],
    "messages": ["kvasir.dialects.nemesis", "kvasir.store"],
    "tokens": ["kvasir.access", "jwt"],
    "websocket": ["kvasir.listeners.websocket", "kvasir.dialects.nemesis.conversation"],
}

#: An input that takes so many seconds, or bytes of memory, breaks a promise, too. What the listeners take is bounded.
BOUNDS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]


def main() -> None:
    name, *rest = sys.argv[1:] or [""]
    if name not in NAMES:
        sys.exit(f"python -m tests.fuzz NAME [DIRECTORY] [OPTIONS]; NAME is one of: {', '.join(NAMES)}")
    with atheris.instrument_imports(include=WATCHED[name]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    options = [each for each in rest if each.startswith("-")]
    with tempfile.TemporaryDirectory() as forgotten:
        # The fuzzer adds what it learns to the first directory.
        learnt = next((each for each in rest if not each.startswith("-")), forgotten)
        atheris.Setup([sys.argv[0], learnt, str(SEEDS / name), *BOUNDS, *options], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
