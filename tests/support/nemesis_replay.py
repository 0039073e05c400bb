"""Reads a transcript and holds a server to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from websockets.sync.client import ClientConnection

#: What differs from run to run, beside tokens.
_TIMES = re.compile(r'"(time|remaining)":\d+|("st":121,"duration"):\d+')
_SLEEP = re.compile(r"\(sleep ([\d.]+) s\)")
_TOKEN = re.compile(r'"tkn":"(\d+)"')


class Step(NamedTuple):
    """A message and its replies, or (message None) a remark."""

    line: int
    message: str | bytes | None
    replies: list[str]
    remark: str = ""


def steps(transcript: Path) -> Iterator[Step]:
    """The steps of a transcript, in order."""
    step: Step | None = None
    for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("<< "):
            assert step is not None
            if line != "<< (no reply)":
                step.replies.append(line[3:])
            continue
        if step is not None:
            yield step
            step = None
        if line.startswith(">>"):
            text = line[3:]
            message = text.removeprefix("BINARY ").encode() if text.startswith("BINARY ") else text
            step = Step(number, message, [])
        elif line.startswith("   ("):
            yield Step(number, None, [], line.strip())
    if step is not None:
        yield step


class Replay:
    """Sends the messages of a transcript with the tokens of this run, and compares every reply."""

    def __init__(self, send: Callable[[ClientConnection, str | bytes], None]) -> None:
        self._send = send
        #: Token in the transcript -> token of this run
        self._tokens: dict[str, str] = {}
        self.compared = 0

    def run(self, transcript: Path, connection: ClientConnection) -> None:
        """Replay all of it. Fails at the first reply that is not the one expected, naming its line."""
        for step in steps(transcript):
            if step.message is None:
                if pause := _SLEEP.search(step.remark):
                    time.sleep(float(pause[1]))
                continue
            message = step.message
            self._send(connection, self._translated(message) if isinstance(message, str) else message)
            for expected in step.replies:
                actual = connection.recv(timeout=30)
                assert isinstance(actual, str)
                if isinstance(message, str) and message.startswith('{"SH_NEW"'):
                    self._learn(expected, actual)
                wanted = _timeless(self._translated(expected))
                assert _timeless(actual) == wanted, f"{transcript.name}:{step.line}: after {message!r}"
                self.compared += 1

    def _learn(self, expected: str, actual: str) -> None:
        recorded, given = _TOKEN.search(expected), _TOKEN.search(actual)
        if recorded and given:
            known = self._tokens.setdefault(recorded[1], given[1])
            assert known == given[1], "joining a shared session gives its token again"

    def _translated(self, text: str) -> str:
        for recorded, given in self._tokens.items():
            text = text.replace(f'"{recorded}"', f'"{given}"')
        return text


def _timeless(text: str) -> str:
    return _TIMES.sub(lambda found: f'"{found[1]}":0' if found[1] else f"{found[2]}:0", text)
