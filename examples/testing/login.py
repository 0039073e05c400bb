"""Logins as sessions of NemesisDB: an hour after the login one has to log in again."""

from __future__ import annotations

import json
from typing import Any

from websockets.sync.client import ClientConnection

HOUR = 3_600
GONE = 100


class Logins:
    """Logins over one connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def log_in(self, user: str) -> str:
        """A token that is good for an hour."""
        expiry = {"duration": HOUR, "deleteSession": True}
        token = str(self._send("SH_NEW", {"name": user, "expiry": expiry})["tkn"])
        self._send("KV_SET", {"tkn": token, "keys": {"user": user}})
        return token

    def user(self, token: str) -> str | None:
        """Who has this token; None: it is no longer good."""
        found = self._send("KV_GET", {"tkn": token, "keys": ["user"]})
        return None if found.get("st") == GONE else found["keys"]["user"]

    def _send(self, command: str, parameters: dict[str, Any]) -> Any:
        self._connection.send(json.dumps({command: parameters}))
        return json.loads(self._connection.recv())[f"{command}_RSP"]
