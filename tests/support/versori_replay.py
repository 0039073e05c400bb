"""Transcripts: requests as clients send them with the answers they get, in text files a person can read.

An exchange is a request line, perhaps a body, and `=> STATUS BODY`; an empty line ends it, `#` starts a remark.
What differs from run to run has a name: `<stamp 1>` is the first versionstamp that appears, `<cursor 1>` the first
cursor, `<time>` any date-time; a request may use the names that have appeared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "versori" / "transcripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))

_VARYING = {
    "stamp": re.compile(r"\b[0-9a-f]{20}\b"),
    "cursor": re.compile(r'(?<=Cursor":")[\w-]{20}(?=")'),
}
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_STORES = re.compile(r'(?<="stores":)\[\{.*\}\]')

#: Takes method, target and body; gives status and body.
Send = Callable[[str, str, bytes], tuple[int, str]]


def replay(name: str, send: Send, **places: str) -> None:
    """Send every request of a transcript and compare every answer. `places` fill {names} in request lines."""
    known: dict[str, str] = {}
    for line, body, expected in _exchanges((FOLDER / f"{name}.txt").read_text(encoding="utf-8")):
        method, target = line.split(" ", 1)
        for place, text in places.items():
            target = target.replace(f"{{{place}}}", text)
        for label, text in known.items():
            body = body.replace(label, text)
        status, answer = send(method, target, body.encode())
        assert f"{status} {_named(answer, known)}" == expected, f"{line}\n{body}"


def _exchanges(text: str) -> Iterator[tuple[str, str, str]]:
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            *request, expected = lines
            yield request[0], "".join(request[1:]), expected.removeprefix("=> ")


def _named(answer: str, known: dict[str, str]) -> str:
    for kind, pattern in _VARYING.items():
        for text in pattern.findall(answer):
            if text not in known.values():
                known[f"<{kind} {sum(label.startswith('<' + kind) for label in known) + 1}>"] = text
    for label, text in known.items():
        answer = answer.replace(text, label)
    return _STORES.sub("<stores>", _TIME.sub("<time>", answer))
