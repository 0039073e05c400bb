"""/openapi.json, /docs and the same of /v1: descriptions of APIs for programs and readers. None needs a credential.

The page is made from the document once, at the start. Its style sheet and icon are files beside this module: it needs
no other host and no script, and works under the strict Content-Security-Policy that it is sent with.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, ClassVar

import msgspec

from kvasir.dialects.http import Request, Response
from kvasir.dialects.operations.page import render
from kvasir.errors import KvasirError

_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
_HEADERS = (
    ("Content-Security-Policy", f"{_POLICY}; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
)


class ReferenceDialect:
    """See `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "reference"
    operations: ClassVar[tuple[str, ...]] = ("read",)

    def __init__(self, document: dict[str, Any], own: dict[str, Any], *, console: bool = False) -> None:
        """The documents of the Versori API and of Kvasir's own. `console`: whether the pages lead to one."""
        here = files(__package__)
        page, own_page = (
            Response(200, page.encode(), "read", "ok", _HEADERS, "text/html; charset=utf-8")
            for page in (
                render(document, "/openapi.json", console=console),
                render(own, "/v1/openapi.json", console=console),
            )
        )
        # Pages of any origin may read the document, so that tools on other sites can show it.
        shared = (*_HEADERS, ("Access-Control-Allow-Origin", "*"))
        self._responses = {
            "/openapi.json": Response(200, msgspec.json.encode(document), "read", "ok", shared),
            "/v1/openapi.json": Response(200, msgspec.json.encode(own), "read", "ok", shared),
            "/docs/v1": own_page,
            "/docs/v1/": own_page,
            "/docs": page,
            "/docs/": page,
            "/docs/style.css": Response(
                200, (here / "style.css").read_bytes(), "read", "ok", _HEADERS, "text/css; charset=utf-8"
            ),
            "/docs/icon.svg": Response(200, (here / "icon.svg").read_bytes(), "read", "ok", _HEADERS, "image/svg+xml"),
        }
        self.serves = self._responses.__contains__

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:  # noqa: ARG002
        """See `HttpDialect`. None of its answers is large."""
        return response

    def answer_nowait(self, request: Request) -> bool:  # noqa: ARG002
        return False

    async def __call__(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return self._responses[request.path]
        refusal = {
            "code": "method_not_allowed",
            "message": f"{request.method} is not allowed here; use one of: GET, HEAD",
            "details": "Read it with GET.",
        }
        return Response(405, msgspec.json.encode(refusal), "read", "invalid", (("Allow", "GET, HEAD"),))
