"""A counter in a Versori store that several programs share: read, add, compare and set."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any


class Counter:
    """A number under one key."""

    def __init__(self, url: str, key: str, store: str, name: str) -> None:
        self._address = f"{url}/api/v2/store/{store}/kv/{name}"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def value(self) -> int:
        """The number; 0 if nobody has counted yet."""
        return self._read()[0]

    def increment(self) -> int:
        """Add 1 exactly once, even if an answer is lost. Returns the number afterwards."""
        while True:
            value, versionstamp = self._read()
            condition = {"ifVersionstamp": versionstamp} if versionstamp else {"ifNotExists": True}
            try:
                answer = self._send("PUT", {"value": value + 1, "options": condition})
            except (OSError, HTTPException):
                # It may have happened: then the versionstamp is another one now, and the value is ours or a later one.
                if self._read()[1] != versionstamp:
                    return value + 1
                continue
            if answer["committed"]:
                return value + 1

    def _read(self) -> tuple[int, str]:
        try:
            found = self._send("GET")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return 0, ""
        return found["value"], found["versionstamp"]

    def _send(self, method: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address, content, self._headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
