"""A client of the controls of `kvasir dev`, for tests in Python: clock, faults, requests. Standard library only."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

#: A connection that was idle for longer is not used again. The server ends one after a minute.
IDLE_SECONDS = 5.0


class ControlFailed(Exception):
    """A control refused what it was asked for; the message says why."""


class Controls:
    """One connection to the controls of one server. Safe to use from several threads."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._headers = {"Authorization": f"Bearer {token}"}
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._used = 0.0
        self._lock = threading.Lock()

    def call(self, method: str, control: str, body: object = None, **query: str | int | None) -> Any:
        """What a control answers, decoded. Raises `ControlFailed`, and OSError if the server is gone."""
        chosen = {name: value for name, value in query.items() if value is not None}
        target = f"{self._path}/{control}" + (f"?{urlencode(chosen)}" if chosen else "")
        content = None if body is None else json.dumps(body)
        with self._lock:
            if time.monotonic() - self._used > IDLE_SECONDS:
                self._connection.close()  # and begin another: the server may be about to end this one
            self._used = time.monotonic()
            self._connection.request(method, target, content, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        found = json.loads(text)
        if answer.status != 200:
            raise ControlFailed(found["message"])
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Clock:
    """The clock of one space, or of the whole server."""

    def __init__(self, controls: Controls, space: str | None) -> None:
        self._controls = controls
        self._space = space

    def now_ms(self) -> int:
        """The time, in Unix milliseconds."""
        return int(self._controls.call("GET", "clock", space=self._space)["now_ms"])

    def advance(self, duration: str) -> int:
        """Move it forward by "1500ms", "90s", "15m", "2h" or "31d". Returns how many entries have expired by it."""
        return self._set({"advance": duration})

    def freeze(self, at: str = "now") -> int:
        """Let it stand: now, or at an RFC 3339 instant. Returns how many entries have expired by it."""
        return self._set({"freeze": at})

    def run(self) -> None:
        """Let it run on from where it stands."""
        self._set({"run": True})

    def _set(self, change: Mapping[str, object]) -> int:
        return int(self._controls.call("POST", "clock", change, space=self._space)["expired"])


class Faults:
    """The faults of one space, or of the whole server. docs/testing.md lists the members of a rule."""

    def __init__(self, controls: Controls, space: str | None) -> None:
        self._controls = controls
        self._space = space

    def add(self, outcome: str = "delay", **rule: Any) -> None:
        """Order a fault: `add("unavailable", operation="SetKV", times=2)`."""
        self._controls.call("POST", "faults", [{"outcome": outcome, **rule}], space=self._space)

    def clear(self) -> None:
        """Take back all of them."""
        self._controls.call("DELETE", "faults", space=self._space)


def requests(controls: Controls, space: str | None, **matching: str | int) -> list[dict[str, Any]]:
    """The requests so far, oldest first: of one space, or of all."""
    found: list[dict[str, Any]] = controls.call("GET", "requests", space=space, **matching)
    return found
