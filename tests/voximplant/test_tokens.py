"""Tokens: what is accepted, the right code for everything else, roles, scope and revocation at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kvasir.access.service_tokens import CACHED_TOKENS, MAX_HEADER_CHARACTERS, BadToken, Flaw, ServiceTokenVerifier
from kvasir.control import service_accounts
from kvasir.dialects.voximplant.methods import COMMANDS
from kvasir.errors import Unauthenticated
from kvasir.model import SYSTEM_SPACE, Query
from tests.support.organisations import ORGANISATION
from tests.support.request import FakeRequest
from tests.support.voximplant import NOW, World, settings_with


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(world: World) -> str:
    claims = {"iss": "1", "iat": NOW, "exp": NOW + 60}
    return f"{encoded({'alg': 'none', 'kid': world.credentials.key_id})}.{encoded(claims)}."


def hs256_with_the_public_key(world: World) -> str:
    """The classic confusion: the public key, which anybody may know, as the secret of a symmetric signature."""
    private = load_pem_private_key(world.credentials.private_key.encode(), None)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "typ": "JWT", "kid": world.credentials.key_id}
    signed = f"{encoded(head)}.{encoded({'iss': '1', 'iat': NOW, 'exp': NOW + 60})}"
    signature = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def changed_claims(world: World) -> str:
    head, _, signature = world.sign().split(".")
    return f"{head}.{encoded({'iss': '1', 'iat': NOW, 'exp': NOW + 600})}.{signature}"


def signed_with(algorithm: str) -> Callable[[World], str]:
    return lambda world: jwt.encode(
        {"iss": "1", "iat": NOW, "exp": NOW + 60},
        world.credentials.private_key,
        algorithm,
        {"kid": world.credentials.key_id},
    )


def claims(**given: Any) -> Callable[[World], str]:
    return lambda world: world.sign(**given)


def header(**given: Any) -> Callable[[World], str]:
    return lambda world: world.sign(header=given)


#: name, the token, the code of the error or None
TOKENS: list[tuple[str, Callable[[World], str], int | None]] = [
    ("python", claims(iss="1", iat=NOW - 5, exp=NOW + 24), None),
    ("node", claims(iss=1, iat=NOW, exp=NOW + 64), None),
    ("python, README configuration", claims(iss="0"), None),
    ("issuer 0", claims(iss=0), None),
    (".NET: exactly an hour, nbf", claims(iat=NOW, nbf=NOW, exp=NOW + 3_600), None),
    ("no typ", header(typ=None), None),
    ("lifetime 3601", claims(iat=NOW, exp=NOW + 3_601), 454),
    ("from the future, within the leeway", claims(iat=NOW + 60, exp=NOW + 120), None),
    ("from the future", claims(iat=NOW + 61, exp=NOW + 120), 455),
    ("not before the future", claims(nbf=NOW + 61), 455),
    ("expired, within the leeway", claims(iat=NOW - 120, exp=NOW - 60), None),
    ("expired", claims(iat=NOW - 120, exp=NOW - 61), 456),
    ("lifetime before expiry", claims(iat=NOW - 7_200, exp=NOW - 61), 454),
    ("other account", claims(iss="2"), 100),
    ("other account, number", claims(iss=2), 100),
    ("issuer padded", claims(iss="01"), 100),
    ("issuer true", claims(iss=True), 100),
    ("no issuer", claims(iss=None), 100),
    ("no exp", claims(exp=None), 447),
    ("no iat", claims(iat=None), 447),
    ("exp as text", claims(exp=str(NOW + 60)), 447),
    ("exp without end", claims(exp=10**300), 447),
    ("exp beyond a double", claims(exp=10**400), 447),
    ("iat beyond a double", claims(iat=-(10**400)), 447),
    ("nbf beyond a double", claims(nbf=10**400), 447),
    ("exp infinite", claims(exp=float("inf")), 447),
    ("iat no number", claims(iat=float("nan")), 447),
    ("fractions", claims(iat=NOW - 0.5, exp=NOW + 60.5), None),
    ("wrong signature", lambda world: world.sign()[:-8] + "AAAAAAAA", 100),
    (
        "signature of another key",
        lambda world: world.sign(world.account("Owner"), {"kid": world.credentials.key_id}),
        100,
    ),
    ("changed claims", changed_claims, 100),
    ("alg none", unsigned, 447),
    ("HS256 with the public key", hs256_with_the_public_key, 447),
    ("RS512", signed_with("RS512"), 447),
    ("PS256", signed_with("PS256"), 447),
    ("unknown critical header", header(crit=["b64"], b64=False), 447),
    ("unknown kid", header(kid="00000000-0000-4000-8000-000000000000"), 433),
    ("kid that is no text", header(kid="\ud800"), 433),
    ("no kid", lambda world: jwt.encode({"iss": "1"}, world.credentials.private_key, "RS256"), 433),
    ("no token at all", lambda _: "nonsense", 447),
    ("two parts", lambda world: world.sign().rpartition(".")[0], 447),
    ("header is a list", lambda _: f"{encoded([])}.{encoded({})}.AA", 447),
    ("claims are a list", lambda world: f"{world.sign().split('.')[0]}.{encoded([])}.AA", 100),
    ("too long", lambda world: world.sign(extra="x" * MAX_HEADER_CHARACTERS), 447),
    ("not ASCII", lambda _: "é.é.é", 447),
]


@pytest.mark.parametrize(("token", "code"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS])
def test_token(token: Callable[[World], str], code: int | None) -> None:
    world = World()
    given = token(world)
    # The second time it may be a remembered one.
    for _ in range(2):
        assert world.code("SetKeyValueItem", key="k", value="v", token=given) == code


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, 100),
        ("", 100),
        ("Bearer", 100),
        ("Bearer ", 100),
        ("Basic YTpi", 100),
        ("bearer {}", None),
        ("Bearer   {} ", None),
    ],
)
def test_authorization_header(authorization: str | None, code: int | None) -> None:
    world = World()
    headers = {} if authorization is None else {"authorization": authorization.format(world.token)}
    response = world.respond(FakeRequest("POST", "/platform_api/GetKeyValueKeys?application_id=1", headers=headers))
    assert response.status == 200
    assert json.loads(response.body).get("error", {}).get("code") == code


def test_a_stranger_learns_neither_commands_nor_key_ids() -> None:
    world = World(settings_with(unknown_key_id_code=100))
    stranger = world.sign(header={"kid": "00000000-0000-4000-8000-000000000000"})
    error = world.call("NoSuchMethod", token=stranger)["error"]
    assert error == {"msg": "Authorization failed.", "code": 100}


def test_the_body_of_a_stranger_is_not_read() -> None:
    request = FakeRequest("POST", "/platform_api", b"x" * 100)
    World().respond(request)
    assert not request.asked_for_body


#: roles of the account -> methods it may not use
EVERYTHING = list(COMMANDS)
READING = ["GetKeyValueItem", "GetKeyValueItems", "GetKeyValueKeys"]


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        (["Owner"], EVERYTHING),
        (["Admin"], EVERYTHING),
        (["Developer"], EVERYTHING),
        (["Accountant", "Developer"], EVERYTHING),
        (["KV Reader"], READING),
        (["KV Reader", "Payer"], READING),
        (["Accountant"], []),
        ([], []),
    ],
    ids=lambda names: "-".join(names)[:40],
)
def test_roles(roles: list[str], allowed: list[str]) -> None:
    world = World()
    token = world.sign(world.account(*roles))
    codes = {method: world.code(method, token=token) for method in COMMANDS}
    assert [method for method, code in codes.items() if code != 104] == allowed
    # Unknown comes before forbidden, forbidden before parameters.
    assert world.code("NoSuchMethod", token=token) == 103


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="no role 'developer'"):
        World().account("developer")


def test_scope() -> None:
    world = World()
    other = world.application("other", 2)
    token = world.sign(world.account("Developer", scope=[other.id]))
    assert world.code("SetKeyValueItem", key="k", value="v", application_id=2, token=token) is None
    # Outside the scope is as unknown as what is not there.
    assert world.code("SetKeyValueItem", key="k", value="v", application_id=1, token=token) == 116
    assert world.code("SetKeyValueItem", key="k", value="v", application_id=9, token=token) == 116
    by_name = {"application_id": None, "application_name": "myapp1"}
    assert world.code("SetKeyValueItem", key="k", value="v", token=token, **by_name) == 107


def test_each_organisation_has_an_account_of_its_own() -> None:
    world = World()
    other = world.account("Owner", organisation="01JZX0W7M2Q4T8V6B3N5C9D1EG")
    assert (world.credentials.account_id, world.account("Owner").account_id, other.account_id) == (1, 1, 2)
    assert world.code("GetKeyValueKeys", token=world.sign(other)) == 116


def test_two_processes_that_start_together_agree_on_the_account_id() -> None:
    world = World()

    async def both() -> list[int]:
        return list(
            await asyncio.gather(*(service_accounts.account_of(world.engine, f"org-{n % 3}") for n in range(9)))
        )

    ids = asyncio.run(both())
    assert ids[:3] == ids[3:6] == ids[6:]
    assert set(ids) == {2, 3, 4}


def test_revoked_at_once_in_every_process() -> None:
    """Another process revokes the key: only the epoch tells this one, which has the token in memory."""
    world = World()
    assert world.code("GetKeyValueKeys") is None
    assert world.code("GetKeyValueKeys") is None
    asyncio.run(service_accounts.revoke(world.engine, world.credentials.key_id))
    assert world.code("GetKeyValueKeys") == 433
    assert world.code("GetKeyValueKeys", token=world.sign()) == 433


def test_only_the_public_half_is_kept() -> None:
    world = World()
    (account,) = asyncio.run(service_accounts.accounts(world.engine, ORGANISATION))
    assert account.public_key.startswith("-----BEGIN PUBLIC KEY-----")
    assert world.credentials.private_key.startswith("-----BEGIN PRIVATE KEY-----")
    system = asyncio.run(world.engine.page(SYSTEM_SPACE, Query())).entries
    assert system
    assert not any(b"PRIVATE" in entry.value for entry in system)


def test_a_verified_token_is_remembered_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    verify = Mock(wraps=jwt.decode)
    monkeypatch.setattr("kvasir.access.service_tokens.jwt.decode", verify)
    for _ in range(5):
        assert world.code("GetKeyValueKeys") is None
    assert verify.call_count == 1
    world.now += 120_000  # exp is 60 s away, the leeway another 60 s
    assert world.code("GetKeyValueKeys") is None
    world.now += 1_000
    assert world.code("GetKeyValueKeys") == 456
    assert world.code("GetKeyValueKeys") == 456


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvasir.access.service_tokens.CACHED_TOKENS", 5)
    assert CACHED_TOKENS >= 1_000
    world = World()
    tokens = ServiceTokenVerifier(world.store, world.engine)
    for number in range(9):
        asyncio.run(tokens.verify(f"Bearer {world.sign(extra=number)}"))
    assert len(tokens._tokens) == 5


def test_every_flaw_is_unauthenticated_and_names_itself() -> None:
    for flaw in Flaw:
        assert isinstance(BadToken(flaw), Unauthenticated)
        assert BadToken(flaw).message == flaw.value
