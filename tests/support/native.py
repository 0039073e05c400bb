"""Kvasir's own API at a real server, and ways to talk about it."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
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


class Events:
    """An open `watch`, read in a thread of its own."""

    def __init__(self, kv: Client, query: str = "", *, headers: dict[str, str] | None = None) -> None:
        self._stream = kv.http.stream(
            "GET", f"spaces/{kv.id}/watch?{query}", headers=headers or {}, timeout=httpx.Timeout(10, read=60)
        )
        self.response = self._stream.__enter__()
        self._queue: queue.SimpleQueue[tuple[str, Any, str | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        event: dict[str, str] = {}
        try:
            for line in self.response.iter_lines():
                if line and not line.startswith(":"):
                    name, _, text = line.partition(": ")
                    event[name] = text
                elif event:
                    self._queue.put((event["event"], json.loads(event["data"]), event.get("id")))
                    event = {}
        except httpx.HTTPError:
            pass
        self._queue.put(None)

    def next(self) -> tuple[str, Any, str | None]:
        """(name, data, id) of the next event."""
        event = self._queue.get(timeout=60)
        assert event is not None, "the stream has ended"
        return event

    def ended(self) -> bool:
        """Whether nothing follows; waits for it."""
        return self._queue.get(timeout=60) is None

    def close(self) -> None:
        # The thread waits for what comes, and closing alone would not end that.
        with contextlib.suppress(OSError):
            self.response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._stream.__exit__(None, None, None)

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
