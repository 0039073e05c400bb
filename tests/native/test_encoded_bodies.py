"""Bodies that are not what they seem: encoded ones are refused by name, a byte order mark before JSON is skipped."""

from __future__ import annotations

import gzip

import httpx

from tests.support.native import Client


def test_an_encoded_body_is_refused_by_name(v1: httpx.Client, kv: Client) -> None:
    for content in (gzip.compress(b"1"), b"1"):
        for method, path in (("PUT", f"spaces/{kv.id}/entries/a"), ("POST", "spaces")):
            answer = v1.request(method, path, content=content, headers={"Content-Encoding": "gzip"})
            assert answer.status_code == 415
            assert answer.json()["code"] == "unsupported_encoding"
            assert "'gzip'" in answer.json()["detail"]
            assert answer.headers["Accept-Encoding"] == "identity"
    assert v1.get(f"spaces/{kv.id}/entries/a").status_code == 404


def test_a_byte_order_mark_is_skipped(v1: httpx.Client) -> None:
    answer = v1.post("spaces", content=b'\xef\xbb\xbf{"name":"marked"}', headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 201)
    assert answer.json()["name"] == "marked"
