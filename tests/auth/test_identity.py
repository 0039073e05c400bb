"""Tokens of an identity provider: what is accepted, what never is, and how the key set is fetched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import json
import socketserver
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from kvasir.access import identity_provider
from kvasir.access.authenticator import Authenticator
from kvasir.access.identity_provider import IdentityProvider
from kvasir.config.table import Config
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.numbering import wall_clock
from kvasir.errors import Unauthenticated, Unavailable
from kvasir.limits import Limits
from kvasir.model import Principal
from kvasir.store.store import Store
from tests.support.identity_provider import AUDIENCE, ISSUER, claims, ec_key, key_set, rsa_jwk, rsa_key, token
from tests.support.organisations import ORGANISATION


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def hand_made(header: Any, payload: Any, signature: bytes = b"") -> str:
    return f"{part(header)}.{part(payload)}.{part(signature)}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key set with two RSA keys and one for ES256."""
    ec_jwk = ECAlgorithm.to_jwk(ec_key().public_key(), as_dict=True) | {"kid": "e1"}
    path = tmp_path / "jwks.json"
    path.write_text(key_set(rsa_jwk("k1", alg="RS256", use="sig"), rsa_jwk("k2"), ec_jwk))
    return path


def auth(source: object, **settings: Any) -> Authenticator:
    store = Store(MemoryEngine(), Limits(), wall_clock)
    return Authenticator(store, store._engine, IdentityProvider(str(source), ISSUER, AUDIENCE, **settings))


def ask(who: Authenticator, text: str, scheme: str = "JWT") -> Principal:
    return asyncio.run(who.authenticate(f"{scheme} {text}", None))


def refused(source: object, text: str, **settings: Any) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        ask(auth(source, **settings), text)
    return refusal.value.message


@pytest.mark.parametrize(("kid", "algorithm"), [("k1", "RS256"), ("k2", "RS256"), ("e1", "ES256")])
@pytest.mark.parametrize("scheme", ["JWT", "bearer"])
def test_a_valid_token(file: Path, kid: str, algorithm: str, scheme: str) -> None:
    principal = ask(auth(file), token(kid, algorithm), scheme)
    assert (principal.organisation, principal.role, principal.name) == (ORGANISATION, "developer", "alice")


def test_a_token_in_the_cookie(file: Path) -> None:
    assert asyncio.run(auth(file).authenticate(None, f"cookie={token()}")).name == "alice"


def test_a_key_set_of_one_serves_tokens_without_a_key_id(tmp_path: Path, file: Path) -> None:
    only = tmp_path / "one.json"
    only.write_text(key_set(rsa_jwk(None)))
    assert ask(auth(only), token(None)).name == "alice"
    assert "kid" in refused(file, token(None))


#: Claims that make a valid token invalid, and a word of the answer.
BAD_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"exp": 1}, "expired"),
    ({"exp": None}, "exp"),
    ({"exp": "soon"}, "exp"),
    ({"nbf": int(time.time()) + 3_600}, "not yet valid"),
    ({"iss": "https://elsewhere.example.org/"}, "issuer"),
    ({"iss": None}, "iss"),
    ({"aud": "another service"}, "udience"),
    ({"aud": None}, "aud"),
    ({"organisation": None}, "ULID"),
    ({"organisation": "acme"}, "ULID"),
    ({"organisation": ["01JZX0W7M2Q4T8V6B3N5C9D1EF"]}, "ULID"),
]


@pytest.mark.parametrize(("changes", "word"), BAD_CLAIMS)
def test_bad_claims(file: Path, changes: dict[str, Any], word: str) -> None:
    assert word in refused(file, token(**changes))


def test_an_algorithm_that_is_not_pinned(file: Path) -> None:
    assert "algorithm" in refused(file, token("k2", "RS512"))
    assert ask(auth(file, algorithms=("RS512",)), token("k2", "RS512")).name == "alice"


def test_no_signature_at_all(file: Path) -> None:
    for name in ("none", "None", "NONE", "nOnE"):
        assert "algorithm" in refused(file, hand_made({"alg": name, "kid": "k1"}, claims()))
        assert refused(file, hand_made({"alg": name, "kid": "k1"}, claims()), algorithms=("RS256", "none"))


def test_hs256_with_the_public_key_as_the_secret(file: Path) -> None:
    public = rsa_key("k1").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, payload = part({"alg": "HS256", "kid": "k1"}), part(claims())
    signature = hmac.new(public, f"{header}.{payload}".encode(), hashlib.sha256).digest()
    forged = f"{header}.{payload}.{part(signature)}"
    assert "algorithm" in refused(file, forged)
    # Even an operator's mistake must not let a public key verify as a secret.
    refused(file, forged, algorithms=("RS256", "HS256"))


def test_a_symmetric_key_in_the_set_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(key_set(rsa_jwk("k1"), {"kty": "oct", "kid": "s1", "k": part(b"s" * 32)}))
    forged = jwt.encode(claims(), b"s" * 32, "HS256", headers={"kid": "s1"})
    refused(file, forged, algorithms=("RS256", "HS256"))


def test_an_encryption_key_in_the_set_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(key_set(rsa_jwk("k1"), rsa_jwk("k2", use="enc")))
    assert "kid" in refused(file, token("k2"))


def test_a_signature_of_another_key(file: Path) -> None:
    forged = jwt.encode(claims(), rsa_key("stranger"), "RS256", headers={"kid": "k1"})
    assert "ignature" in refused(file, forged)
    head, _, signature = token().split(".")
    assert "ignature" in refused(file, f"{head}.{part(claims(role='owner'))}.{signature}")


def test_a_key_with_another_kind_of_key_id(file: Path) -> None:
    assert refused(file, token("e1", "RS256"))


@pytest.mark.parametrize(
    "text",
    [
        "a.b.c",
        "..",
        hand_made([], {}),
        hand_made({"alg": "RS256", "kid": 5}, {}),
        hand_made({"alg": "RS256", "kid": ["k1"]}, {}),
        hand_made({"alg": ["RS256"], "kid": "k1"}, {}),
        hand_made({"alg": "RS256", "kid": "k1"}, []),
        hand_made({"kid": "k1"}, {}),
        hand_made(b"[" * 5_000, {}),
        hand_made(b"\xff\xfe", {}),
        "a.b.\udcff",
    ],
)
def test_garbage(file: Path, text: str) -> None:
    refused(file, text)


def test_roles(file: Path) -> None:
    who = auth(file)
    for said, role in [
        ("viewer", "viewer"),
        (["offline", "viewer", "admin"], "admin"),
        ("root", "none"),
        ([], "none"),
        (None, "none"),
        ({"owner": True}, "none"),
    ]:
        assert ask(who, token(role=said)).role == role


def test_nested_claims(file: Path) -> None:
    who = auth(file, organisation_claim="https://kvasir.example/org", role_claim="realm_access.roles")
    given: dict[str, Any] = {"https://kvasir.example/org": ORGANISATION.lower(), "realm_access": {"roles": ["owner"]}}
    principal = ask(who, token(**given))
    assert (principal.organisation, principal.role) == (ORGANISATION, "owner")


def test_clocks_may_differ_by_a_minute_both_ways(file: Path) -> None:
    now = int(time.time())
    good: list[dict[str, Any]] = [{"iat": now + 55}, {"nbf": now + 55}, {"iat": now - 300, "exp": now - 55}]
    for times in good:
        assert ask(auth(file), token(**times)).name == "alice"
    bad: dict[str, dict[str, Any]] = {"iat": {"iat": now + 75}, "not yet": {"nbf": now + 75}, "exp": {"exp": now - 61}}
    for word, times in bad.items():
        assert word in refused(file, token(**times))


@pytest.mark.parametrize(("given", "name"), [({"sub": 42}, "42"), ({"sub": None}, "token"), ({"jti": 7}, "alice")])
def test_claims_that_only_name_something_may_be_numbers(file: Path, given: dict[str, Any], name: str) -> None:
    assert ask(auth(file), token(**given)).name == name


def test_a_time_beyond_all_numbers_is_refused(file: Path) -> None:
    for name in ("exp", "iat", "nbf"):
        payload = json.dumps(claims(**{name: 0})).replace(f'"{name}": 0', f'"{name}": 1e999')
        signed = f"{part({'alg': 'RS256', 'kid': 'k1'})}.{part(payload.encode())}"
        signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed.encode(), rsa_key("k1"))
        assert name in refused(file, f"{signed}.{part(signature)}")


def test_a_key_set_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(key_set(rsa_jwk("k1")), encoding="utf-8-sig")
    assert ask(auth(file), token()).name == "alice"


def test_a_cached_token_expires_at_its_exp(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    who = auth(file)
    text = token()
    principal = ask(who, text)
    assert ask(who, text) is principal
    expiry = principal.expires_at
    assert expiry is not None
    monkeypatch.setattr(who, "clock", lambda: expiry - 1)
    assert ask(who, text) is principal
    monkeypatch.setattr(who, "clock", lambda: expiry)
    with pytest.raises(Unauthenticated, match="expired"):
        ask(who, text)


# -- fetching -------------------------------------------------------------------------------------------------


class KeyServer:
    """A web server that answers with `status` and `text`, and counts the requests."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.status = 200
        self.asked = 0
        self.redirect: str | None = None


@contextlib.contextmanager
def key_server(text: str) -> Iterator[tuple[KeyServer, str]]:
    state = KeyServer(text)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            body = state.text.encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state, f"http://127.0.0.1:{server.server_address[1]}/jwks"
        finally:
            server.shutdown()
            thread.join()


def test_a_key_set_from_a_url_is_fetched_once() -> None:
    async def work(who: Authenticator) -> None:
        names = await asyncio.gather(*[who.authenticate(f"JWT {token(sub=f'user {n}')}", None) for n in range(20)])
        assert len({principal.name for principal in names}) == 20

    with key_server(key_set(rsa_jwk("k1"))) as (server, url):
        asyncio.run(work(auth(url)))
        assert server.asked == 1


def test_a_new_key_is_fetched_but_strangers_cannot_cause_many_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(who: Authenticator, server: KeyServer) -> None:
        await who.authenticate(f"JWT {token('k1')}", None)
        server.text = key_set(rsa_jwk("k2"))
        for n in range(50):
            with pytest.raises(Unauthenticated, match="kid"):
                await who.authenticate(f"JWT {token('k2', sub=str(n))}", None)
        assert server.asked == 1
        monkeypatch.setattr(identity_provider, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
        assert (await who.authenticate(f"JWT {token('k2')}", None)).name == "alice"
        assert server.asked == 2

    with key_server(key_set(rsa_jwk("k1"))) as (server, url):
        asyncio.run(work(auth(url), server))


def test_an_old_key_set_is_fetched_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(who: Authenticator, server: KeyServer) -> None:
        await who.authenticate(f"JWT {token('k1')}", None)
        server.text = key_set(rsa_jwk("k2"))
        monkeypatch.setattr(identity_provider, "MAX_KEY_SET_AGE_SECONDS", 0.0)
        monkeypatch.setattr(identity_provider, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
        await who.authenticate(f"JWT {token('k1', sub='bob')}", None)
        monkeypatch.setattr(identity_provider, "MAX_KEY_SET_AGE_SECONDS", 300.0)
        assert who._identity_provider is not None
        assert who._identity_provider._fetching is not None
        await who._identity_provider._fetching
        with pytest.raises(Unauthenticated, match="kid"):
            await who.authenticate(f"JWT {token('k1', sub='carol')}", None)

    with key_server(key_set(rsa_jwk("k1"))) as (server, url):
        asyncio.run(work(auth(url), server))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, ""),
        (200, "no JSON"),
        (200, "[]"),
        (200, '{"keys": []}'),
        (200, '{"keys": 5}'),
        (200, '{"keys": [5, {}]}'),
        (200, " " * (identity_provider.MAX_KEY_SET_BYTES + 1)),
        (200, "[" * 100_000),
    ],
)
def test_a_key_set_that_cannot_be_fetched(status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(who: Authenticator, server: KeyServer) -> None:
        with pytest.raises(Unavailable):
            await who.authenticate(f"JWT {token()}", None)
        server.status, server.text = 200, key_set(rsa_jwk("k1"))
        monkeypatch.setattr(identity_provider, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
        await who.authenticate(f"JWT {token()}", None)
        # From now on a failed fetch leaves the previous keys in force.
        server.status, server.text = status, text
        with pytest.raises(Unavailable):  # perhaps it has a key that we cannot know of
            await who.authenticate(f"JWT {token('k2')}", None)
        monkeypatch.setattr(identity_provider, "MIN_FETCH_INTERVAL_SECONDS", 60.0)
        with pytest.raises(Unavailable):
            await who.authenticate(f"JWT {token('k2')}", None)
        await who.authenticate(f"JWT {token(sub='bob')}", None)

    with key_server(text) as (server, url):
        server.status = status
        asyncio.run(work(auth(url), server))


@pytest.mark.parametrize(
    "spoken",
    [
        b"",
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_a_provider_that_does_not_speak_http(spoken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(spoken)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(Unavailable, match="cannot be fetched"):
                ask(auth(f"http://127.0.0.1:{server.server_address[1]}/jwks"), token())
        finally:
            server.shutdown()
            thread.join()
    assert "cannot be fetched" in caplog.text


def test_a_redirect_may_not_leave_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(io.BytesIO):
        url = "http://elsewhere.example/jwks"

    def redirected(*_: Any, **__: Any) -> Answer:
        return Answer(key_set(rsa_jwk("k1")).encode())

    monkeypatch.setattr(urllib.request, "urlopen", redirected)
    with pytest.raises(Unavailable):
        ask(auth("https://identity.example/jwks"), token())
    Answer.url = "https://elsewhere.example/jwks"
    assert ask(auth("https://identity.example/jwks"), token()).name == "alice"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        ask(auth(tmp_path / "none.json"), token())


def test_a_caller_who_leaves_does_not_cancel_the_fetch(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()
    read = identity_provider._read

    def slow(source: str) -> bytes:
        asked.set()
        assert go_on.wait(10)
        return read(source)

    async def work(who: Authenticator) -> None:
        first = asyncio.create_task(who.authenticate(f"JWT {token()}", None))
        second = asyncio.create_task(who.authenticate(f"JWT {token()}", None))
        assert await asyncio.to_thread(asked.wait, 10)
        first.cancel()
        go_on.set()
        assert (await second).name == "alice"

    monkeypatch.setattr(identity_provider, "_read", slow)
    asyncio.run(work(auth(file)))


def test_settings_configure_the_provider(tmp_path: Path) -> None:
    assert IdentityProvider.from_config(Config()) is None
    made = IdentityProvider.from_config(Config(jwks="keys.json", jwt_issuer=ISSUER, jwt_audience=AUDIENCE))
    assert isinstance(made, IdentityProvider)
