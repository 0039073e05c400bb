"""The Voximplant API with a reused token, beside the Versori API on the same server in the same run."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.harness import Report, wrk
from tests.support.serving import serving
from tests.support.voximplant_live import Live

VALUE = "x" * 100

#: The requests of the Python client; keys go round, so that a SetKeyValueItem both creates and replaces.
SET = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
local n = 0
function request()
  n = n + 1
  local item = "key=products%%3A" .. (n %% 10000) .. "&value=%s"
  return wrk.format(nil, nil, nil, item .. "&application_id=1&cmd=SetKeyValueItem")
end
"""
GET = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = "key=products%3A1&application_id=1&cmd=GetKeyValueItem"
"""
#: Parameters in the query, as the API's documents show it.
IN_QUERY = "GetKeyValueItem?key=products%3A1&application_id=1"
PUT = """
wrk.method = "PUT"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
local n = 0
function request() n = n + 1; return wrk.format(nil, wrk.path .. "%%3A" .. (n %% 10000)) end
"""

#: Items of the application whose keys are listed by offset, the dearest request of this API.
LISTED = 10_000


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as server:
        live = Live(server, Path(directory), 0)
        headers = {"Authorization": f"Bearer {live.token()}"}
        api, store = f"{server.url}/platform_api", f"{server.url}/store/{server.store}/kv/products"
        body = json.dumps({"value": VALUE})
        for connections in (16, 128):
            put = wrk(store, connections=connections, headers=server.headers, script=PUT % body)
            set_ = wrk(api, connections=connections, headers=headers, script=SET % VALUE)
            report.figure(f"durable SetKeyValueItem, {connections} connections", set_.per_second, "/s")
            ratio = set_.per_second / put.per_second
            report.target(f"SetKeyValueItem / Versori PUT, {connections} connections", ratio, 0.5)
        # wrk may keep the first of its requests to itself.
        _send("PUT", f"{store}%3A1", server.headers, body.encode())
        _call(live, cmd="SetKeyValueItem", application_id=1, key="products:1", value=VALUE)
        for connections in (16, 128):
            get = wrk(f"{store}%3A1", connections=connections, headers=server.headers)
            # The Python client's form, then the documents' query, which has no body to wait for.
            loads = (("a form", api, GET), ("a query", f"{api}/{IN_QUERY}", 'wrk.method = "POST"'))
            for said, url, script in loads:
                item = wrk(url, connections=connections, headers=headers, script=script)
                report.figure(f"GetKeyValueItem, {said}, {connections} connections", item.per_second, "/s")
                ratio = item.per_second / get.per_second
                report.target(f"GetKeyValueItem, {said} / Versori GET, {connections}", ratio, 0.5)
        _fill(live)
        _listings(report, live)


def _send(verb: str, url: str, headers: dict[str, str], body: bytes) -> bytes:
    request = urllib.request.Request(url, body, headers | {"Content-Type": "application/json"}, method=verb)
    with urllib.request.urlopen(request) as answer:
        text: bytes = answer.read()
    if b'"error"' in text:
        raise AssertionError(text.decode())
    return text


def _call(live: Live, **parameters: object) -> bytes:
    headers = {"Authorization": f"Bearer {live.token()}"}
    return _send("POST", f"{live.server.url}/platform_api", headers, json.dumps(parameters).encode())


def _fill(live: Live) -> None:
    for start in range(0, LISTED, 1_000):
        items = [{"key": f"k{number:06}", "value": VALUE} for number in range(start, start + 1_000)]
        _call(live, cmd="SetKeyValueItems", application_id=12345, items=items)


def _listings(report: Report, live: Live) -> None:
    ask = {"cmd": "GetKeyValueKeys", "application_id": 12345, "count": 50}
    began = time.perf_counter()
    cursor = json.loads(_call(live, **ask))["next_cursor"]
    report.figure(f"first page of {LISTED:,} keys, which counts them", (time.perf_counter() - began) * 1000, "ms")
    began = time.perf_counter()
    _call(live, **ask, cursor=cursor)
    report.figure(f"a page of {LISTED:,} keys by cursor", (time.perf_counter() - began) * 1000, "ms")
