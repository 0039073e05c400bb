"""Access as a running server with two workers grants it: headers, cookies, tokens, other organisations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kvasir.access import LEEWAY_SECONDS
from tests.support.http_client import client
from tests.support.identity_provider import AUDIENCE, ISSUER, key_set, rsa_jwk, token
from tests.support.organisations import ORGANISATION, OTHER
from tests.support.serving import Server, serving, wait_until


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "jwks.json").write_text(key_set(rsa_jwk("k1")))
    provider = ("--jwks", "jwks.json", "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    with serving(directory, "--workers", "2", *provider) as server:
        yield server


def ask(server: Server, method: str = "GET", path: str = "", times: int = 8, **more: Any) -> tuple[int, Any]:
    """The status and body of a request, which every worker must answer alike."""
    address = server.url + (path or f"/o/{ORGANISATION}/store")
    found = [client.request(method, address, **more) for _ in range(times)]
    assert len({answer.status_code for answer in found}) == 1
    return found[0].status_code, found[0].json()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_headers_and_the_cookie(guarded: Server) -> None:
    for headers in (
        bearer(guarded.key),
        {"authorization": f"jwt {guarded.key}"},
        {"Cookie": f"a=b; cookie={guarded.key}"},
        bearer(token()),
        {"Authorization": f"JWT {token()}"},
        {"Cookie": f"cookie={token()}"},
    ):
        assert ask(guarded, headers=headers)[0] == 200
    for headers in ({}, bearer("kv_unknown"), {"Authorization": f"Basic {guarded.key}"}, bearer(token() + "x")):
        status, body = ask(guarded, headers=headers)
        assert (status, body["code"]) == (401, "unauthorized")
        assert guarded.key not in body["message"]


@pytest.mark.parametrize(
    ("role", "read", "write", "create"),
    [("viewer", 404, 403, 403), ("developer", 404, 200, 403), ("admin", 200, 200, 200), (None, 403, 403, 403)],
)
def test_the_roles_of_tokens(guarded: Server, role: str | None, read: int, write: int, create: int) -> None:
    headers = bearer(token(role=role))
    key = f"/store/{guarded.store}/kv/{role}"
    if role == "admin":
        assert ask(guarded, "PUT", key, headers=headers, json={"value": 1})[0] == write
    assert ask(guarded, "GET", key, headers=headers)[0] == read
    assert ask(guarded, "PUT", key, headers=headers, json={"value": 1})[0] == write
    assert ask(guarded, "POST", f"/o/{ORGANISATION}/store", headers=headers, json={"name": f"by {role}"})[0] == create


def test_another_organisation_sees_nothing(guarded: Server) -> None:
    headers = bearer(token(organisation=OTHER, role="owner"))
    status, theirs = ask(guarded, "GET", f"/store/{guarded.store}/kv/a", headers=headers)
    assert status == 404
    nothing = ask(guarded, "GET", f"/store/{OTHER}/kv/a", headers=headers)[1]
    assert (theirs["code"], theirs["message"]) == (nothing["code"], nothing["message"])
    assert ask(guarded, "GET", f"/o/{OTHER}/store", headers=headers) == (200, {"stores": []})
    assert ask(guarded, headers=headers)[0] in {403, 404}


def test_a_cached_token_expires_at_its_exp(guarded: Server) -> None:
    expiry = int(time.time()) + 2
    headers = bearer(token(exp=expiry - LEEWAY_SECONDS))
    seen = set()
    while time.time() < expiry + 0.3:
        before = time.time()
        status = client.get(f"{guarded.url}/o/{ORGANISATION}/store", headers=headers).status_code
        if time.time() < expiry:
            assert status == 200
        elif before >= expiry:
            assert status == 401
        seen.add(status)
    assert seen == {200, 401}


def test_a_token_whose_key_cannot_be_looked_up_is_neither_good_nor_bad(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(key_set(rsa_jwk("k1")))
    provider = ("--jwks", "jwks.json", "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    with serving(tmp_path, *provider) as server:
        now = int(time.time())
        for good in (token(iat=now + 30), token(sub=5), token(exp=now - 30)):
            assert ask(server, headers=bearer(good), times=1)[0] == 200
        (tmp_path / "jwks.json").unlink()
        # No fetch within ten seconds of the last one: until then, the set that is there is what is known.
        wait_until(lambda: ask(server, headers=bearer(token("k2")), times=1)[0] == 503, "the key set is looked for")
        answer = client.get(f"{server.url}/o/{ORGANISATION}/store", headers=bearer(token("k2")))
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert ask(server, headers=bearer(token()), times=1)[0] == 200


def test_secrets_stay_out_of_the_log(tmp_path: Path) -> None:
    with serving(tmp_path, "--access-log", "--log-level", "debug") as server:
        for text in (server.key, "kv_wrong-0123456789", token()):
            ask(server, headers=bearer(text), path="/store/01JZX0W7M2Q4T8V6B3N5C9D1EF/kv/secret-part")
            assert text not in server.log
        assert server.stop() == 0
        assert "secret-part" not in server.log
        assert server.log.count("GetKV") >= 24


def test_a_link_to_the_console_for_a_token_ends_with_it(guarded: Server) -> None:
    expiry = int(time.time()) + 60
    links = f"{guarded.url}/v1/console/links"
    code = client.post(links, headers=bearer(token(role="viewer", exp=expiry))).json()["code"]
    made = client.post(f"{guarded.url}/v1/console/exchange", json={"code": code}).json()
    assert made["role"] == "viewer"
    assert expiry <= datetime.fromisoformat(made["expires_at"]).timestamp() <= expiry + LEEWAY_SECONDS
    assert ask(guarded, headers=bearer(made["key"]))[0] == 200
    assert client.post(links, headers=bearer(token(role=None))).status_code == 403


def test_a_token_that_calls_itself_as_an_access_key_is_called_revokes_none(guarded: Server) -> None:
    """Whoever chooses names at the provider could otherwise revoke the owner's key, whose id is known."""
    headers = bearer(token(role="developer", sub="admin"))
    assert ask(guarded, "DELETE", "/v1/keys/admin", headers=headers)[0] == 403
    assert ask(guarded, headers=bearer(guarded.key))[0] == 200
