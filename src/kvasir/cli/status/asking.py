"""Asks a server what it says of itself: /metrics and /readyz, which need no credential."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from msgspec import Struct

from kvasir.errors import Unavailable

PATIENCE_SECONDS = 5.0

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Look(Struct, frozen=True):
    """What a server said at one moment."""

    url: str
    #: Unix time, in seconds
    at: float
    #: By name: the labels and the value of each sample
    samples: dict[str, list[tuple[dict[str, str], float]]]
    #: Why it is not ready; None: it is
    reason: str | None
    warnings: list[str]


def look(url: str) -> Look:
    """Ask now. Raises `Unavailable`."""
    status, ready = _get(url, "/readyz")
    code, text = _get(url, "/metrics")
    samples = parsed(text)
    if code != http.client.OK or "kvasir_build_info" not in samples:
        raise Unavailable(f"what answers at {url} is no Kvasir server, or an earlier version: see --url")
    with contextlib.suppress(ValueError):
        told = json.loads(ready)
        reason = None if status == http.client.OK else str(told.get("reason", "no reason given"))
        return Look(url, time.time(), samples, reason, [str(each) for each in told.get("warnings", [])])
    raise Unavailable(f"what answers at {url} is no Kvasir server: see --url")


def _get(url: str, path: str) -> tuple[int, str]:
    if not url.startswith(("http://", "https://")):
        raise Unavailable(f"{url} is no address of a server: it begins with http:// or https://")
    # Not by way of a proxy: a server is usually asked from its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + path, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Unavailable(
            f"no server answers at {url} ({why}): start it by `kvasir serve`, or say by --url where it is"
        ) from None


def parsed(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of a text in the form of Prometheus."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        if found := _LINE.match(line):
            labels = {
                name: re.sub(r"\\.", lambda each: _ESCAPED.get(each[0], each[0]), value)
                for name, value in _LABEL.findall(found[2] or "")
            }
            samples.setdefault(found[1], []).append((labels, float(found[3])))
    return samples


def told(ready_file: Path) -> str | None:
    """The address that a server has written to its ready file."""
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads(ready_file.read_text(encoding="utf-8"))
        return str(facts.get("http") or facts.get("https") or "") or None
    return None
