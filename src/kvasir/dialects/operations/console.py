"""The console's page and its files at /console/, and where / leads a browser. No credential needed, no secret shown.

The page is a client of /v1 and has no rights of its own. Its files are package data in `kvasir/console/`. They are read
when the first browser asks, and may be had under two addresses: `/console/app/main.js`, to be asked for again each
time, and `/console/<release>/app/main.js`, to be kept for ever, where <release> is made from the contents of all files.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import secrets
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import ClassVar

import msgspec
from msgspec import Struct

from kvasir.dialects.http import Request, Response
from kvasir.errors import KvasirError

#: Where everything is; files beside the page are named without it.
BASE = "/console/"
PAGE = "index.html"

#: Placeholders in the page: a nonce for its style sheets, new in each answer, and where its files may be kept for ever.
NONCE, ASSETS = b"{{nonce}}", b"{{assets}}"

#: The Content-Security-Policy of the page
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{}'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
#: Smaller files are sent as they are.
COMPRESSED_FROM_BYTES = 1_024

_SAFE = (("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff"))
_NEVER_KEPT = ("Cache-Control", "no-store")
_ASKED_AGAIN, _KEPT = ("Cache-Control", "no-cache"), ("Cache-Control", "public, max-age=31536000, immutable")
_RELEASE = re.compile(r"([0-9a-f]{16})/(.*)", re.DOTALL)


class File(Struct, frozen=True):
    """One file of the console."""

    body: bytes
    #: SHA-256 of it, in hex
    digest: str
    content_type: str


class Site(Struct, frozen=True):
    """All files of the console."""

    #: By the path below `BASE`
    files: dict[str, File]
    #: Differs if any file does
    release: str


class ConsoleDialect:
    """See `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "console"
    operations: ClassVar[tuple[str, ...]] = ("start", "page", "file")

    def __init__(self, *, on: bool) -> None:
        """`on`: whether there is a console; without, / leads to the reference."""
        self._on = on
        self.serves = re.compile(r"/(?:\Z|console(?:/|\Z))").match

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:  # noqa: ARG002
        """See `HttpDialect`."""
        return _refusal(503, "unavailable", error.message, response.operation, (("Retry-After", "1"),))

    def answer_nowait(self, request: Request) -> bool:  # noqa: ARG002
        return False

    async def __call__(self, request: Request) -> Response:
        if request.path == "/":
            return self._start(request)
        if not self._on:
            message = "the console is off; start the server with --console on, and read docs/console.md before"
            return _refusal(404, "route_not_found", message, "page")
        if request.method != "GET":
            return _refusal(405, "method_not_allowed", "read it with GET", "page", (("Allow", "GET, HEAD"),))
        if request.path == "/console":
            return _leading_to(BASE, "page")
        site = await asyncio.to_thread(_site)
        name = request.path.removeprefix(BASE)
        if not name:
            return _page(site)
        found = _RELEASE.fullmatch(name)
        if found is not None and found[1] == site.release:
            name = found[2]
        file = site.files.get(name)
        if file is None or name == PAGE:
            return _refusal(404, "route_not_found", "the console has no such file; load /console/ again", "file")
        return await _file(request, file, _ASKED_AGAIN if found is None else _KEPT)

    def _start(self, request: Request) -> Response:
        """/ is for browsers only: programs have asked for nothing that is there."""
        if request.method == "GET" and "text/html" in (request.header("accept") or "").lower():
            return _leading_to(BASE if self._on else "/docs", "start")
        message = "there is nothing at this path; /docs tells what this server has"
        return _refusal(404, "route_not_found", message, "start", (("Vary", "Accept"),))


@cache
def _site() -> Site:
    found = dict(_walk(files("kvasir") / "console", ""))
    release = hashlib.sha256("\n".join(f"{name} {file.digest}" for name, file in sorted(found.items())).encode())
    return Site(found, release.hexdigest()[:16])


def _walk(folder: Traversable, above: str) -> Iterator[tuple[str, File]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{above}{each.name}/")
        else:
            body = each.read_bytes()
            suffix = each.name[each.name.rfind(".") :]
            yield above + each.name, File(body, hashlib.sha256(body).hexdigest(), TYPES.get(suffix, TYPES[".txt"]))


def _page(site: Site) -> Response:
    nonce = secrets.token_urlsafe(16)
    body = site.files[PAGE].body.replace(NONCE, nonce.encode()).replace(ASSETS, f"{BASE}{site.release}".encode())
    headers = (("Content-Security-Policy", POLICY.format(nonce)), _NEVER_KEPT, *_SAFE)
    return Response(200, body, "page", "ok", headers, "text/html; charset=utf-8")


async def _file(request: Request, file: File, keeping: tuple[str, str]) -> Response:
    shrunk = len(file.body) >= COMPRESSED_FROM_BYTES and _takes_gzip(request.header("accept-encoding") or "")
    tag = f'"{file.digest[:32]}{"-gzip" if shrunk else ""}"'
    headers = (("ETag", tag), keeping, ("Vary", "Accept-Encoding"), *_SAFE)
    known = {each.strip().removeprefix("W/") for each in (request.header("if-none-match") or "").split(",")}
    if tag in known or "*" in known:
        return Response(304, b"", "file", "ok", headers, file.content_type)
    if not shrunk:
        return Response(200, file.body, "file", "ok", headers, file.content_type)
    body = await asyncio.to_thread(_compressed, file.body)
    return Response(200, body, "file", "ok", (*headers, ("Content-Encoding", "gzip")), file.content_type)


@cache
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not to refuse it (RFC 9110, section 12.5.3)."""
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight) is None
    return False


def _leading_to(path: str, operation: str) -> Response:
    return Response(302, b"", operation, "ok", (("Location", path), ("Vary", "Accept"), _NEVER_KEPT, *_SAFE))


def _refusal(
    status: int, code: str, message: str, operation: str, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    body = {"code": code, "message": message, "details": "/docs lists what each path serves."}
    outcome = {404: "not_found", 405: "invalid", 503: "unavailable"}[status]
    return Response(status, msgspec.json.encode(body), operation, outcome, (*headers, _NEVER_KEPT, *_SAFE))
