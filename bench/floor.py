"""The empty application that GET and PUT are measured against."""

from __future__ import annotations

from typing import Any

HEADERS = [("content-type", "application/json")]


async def app(_scope: Any, proto: Any) -> None:
    """Answer every request with the same few bytes."""
    proto.response_str(200, HEADERS, '{"hello":"world"}')
