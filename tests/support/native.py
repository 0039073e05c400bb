"""Kvasir's own API at a real server, and ways to talk about it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx


class Client:
    """One space."""

    def __init__(self, http: httpx.Client, id: str) -> None:
        self.http = http
        self.id = id

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request to a path below the space."""
        return self.http.request(method, f"spaces/{self.id}/{path}", **more)

    def set(self, key: str, value: object = 1, query: str = "", **headers: str) -> httpx.Response:
        """PUT the JSON of a value at a key written like a path; `headers` with underscores."""
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("PUT", f"entries/{key}?{query}", content=text, headers=named)

    def get(self, key: str, query: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("GET", f"entries/{key}?{query}", headers=named)

    def delete(self, key: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("DELETE", f"entries/{key}", headers=named)

    def entry(self, *key: str, query: str = "extend=false") -> Any:
        """The whole entry of any key; None if there is none."""
        answer = self.ask("GET", f"entry?key={array(*key)}&form=entry&{query}")
        return answer.json() if answer.status_code == 200 else None


def array(*key: str) -> str:
    """A key as a query has it in the general form."""
    return quote(json.dumps(key))


def refusal(answer: httpx.Response) -> tuple[int, str, list[str]]:
    """(status, code, the parts of the request to blame) of a failure, which is a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:kvasir:error:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, problem["code"], [field["field"] for field in problem["fields"]]
