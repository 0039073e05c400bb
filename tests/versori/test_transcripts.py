"""The transcripts, in this process and against a real server."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest

from tests.support.organisations import ORGANISATION
from tests.support.serving import Server
from tests.support.versori import Api
from tests.support.versori_replay import NAMES, replay


@pytest.mark.parametrize("name", NAMES)
def test_transcript(api: Api, name: str) -> None:
    def send(method: str, target: str, body: bytes) -> tuple[int, str]:
        answer = api.send(method, target, body)
        return answer.status, answer.text

    replay(name, send, store=api.id, organisation=ORGANISATION)


@pytest.mark.parametrize("name", NAMES)
def test_transcript_of_a_real_server(server: Server, name: str) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:

        def send(method: str, target: str, body: bytes) -> tuple[int, str]:
            # The headers of Versori's Go command line.
            headers = {
                "Authorization": f"JWT {server.key}",
                "User-Agent": "Go-http-client/1.1",
                "Accept-Encoding": "gzip",
            }
            if method != "DELETE":
                headers["Accept"] = "application/json"
            if body:
                headers["Content-Type"] = "application/json"
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "application/json"
            return answer.status, answer.read().decode()

        body = json.dumps({"name": f"transcript {name}"}).encode()
        _, created = send("POST", f"/api/v2/o/{server.organisation}/store", body)
        replay(name, send, store=json.loads(created)["id"], organisation=server.organisation)
