"""The commands beside a running server, an application through two APIs, TLS files and metrics."""

from __future__ import annotations

import json
import re
import ssl
import stat
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from cryptography import x509

from kvasir.cli import local_authority
from kvasir.dialects.voximplant import errors
from kvasir.dialects.voximplant.methods import COMMANDS
from tests.support.cli import run
from tests.support.serving import KVASIR, environment, serving
from tests.support.voximplant_live import APPLICATIONS, CLIENTS, ROOT, Live


def call(
    server: Live, method: str, url: str | None = None, token: str | None = None, **parameters: object
) -> dict[str, Any]:
    body = urlencode({"application_id": 1} | parameters).encode()
    request = urllib.request.Request(
        f"{url or server.server.url}/platform_api/{method}",
        body,
        {"Authorization": f"Bearer {token or server.token()}"},
    )
    with urllib.request.urlopen(request) as answer:
        result: dict[str, Any] = json.load(answer)
    return result


def versori(server: Live, verb: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"{server.server.url}/{path}",
        None if body is None else json.dumps(body).encode(),
        server.server.headers | {"Content-Type": "application/json"},
        method=verb,
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def refusal(*command: str, status: int = 1) -> str:
    refused = run(*command, status=status)
    assert refused.stdout == ""
    return refused.stderr


# -- applications ------------------------------------------------------------------------------------------------


def test_applications(server: Live) -> None:
    made = json.loads(server.kvasir("application", "create", "--name", "shop", "--json"))
    assert made["application_id"] == max(APPLICATIONS) + 1
    assert len(made["id"]) == 26
    # The running server knows it at once; making it again changes nothing.
    assert call(server, "SetKeyValueItem", application_id=made["application_id"], key="k", value="v")["result"]
    assert server.kvasir("application", "create", "--name", "shop").strip() == str(made["application_id"])
    listed = {one["application_id"]: one for one in json.loads(server.kvasir("application", "list", "--json"))}
    assert listed[made["application_id"]] == made | {"entries": 1}
    assert "shop" in server.kvasir("application", "list")
    server.kvasir("application", "delete", "shop", "--yes")
    assert call(server, "GetKeyValueKeys", application_id=made["application_id"])["error"]["code"] == 116
    data = server.server.database_options
    assert refusal("application", "delete", "shop", "--yes", *data)
    assert refusal("application", "create", "--name", "a.b", *data, status=2)
    assert refusal("application", "create", "--name", "other", "--id", "0", *data, status=2)
    assert "'myapp' has the id 1" in refusal("application", "create", "--name", "other", "--id", "1", *data)


# -- service accounts --------------------------------------------------------------------------------------------


def test_service_accounts(server: Live) -> None:
    reader = server.account("KV Reader", "--application", "myapp", "--description", "dashboards")
    assert set(reader) == {"account_email", "account_id", "key_id", "private_key"}
    assert type(reader["account_id"]) is int
    assert reader["private_key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    token = server.token(reader)
    assert "result" in call(server, "GetKeyValueKeys", token=token)
    assert call(server, "SetKeyValueItem", token=token, key="k", value="v")["error"]["code"] == 104
    assert call(server, "GetKeyValueKeys", token=token, application_id=12345)["error"]["code"] == 116
    listed = {one["key_id"]: one for one in json.loads(server.kvasir("service-account", "list", "--json"))}
    assert listed[reader["key_id"]]["roles"] == ["KV Reader"]
    assert "PRIVATE" not in json.dumps(listed)
    assert "dashboards" in server.kvasir("service-account", "list")
    server.kvasir("service-account", "revoke", reader["key_id"])
    assert call(server, "GetKeyValueKeys", token=token)["error"]["code"] == 433
    data = server.server.database_options
    assert "kvasir service-account list" in refusal("service-account", "revoke", reader["key_id"], *data)
    assert "Developer" in refusal("service-account", "create", "--role", "developer", *data, status=2)
    assert refusal("service-account", "create", "--role", "Developer", "--application", "nope", *data)


def test_revoked_at_once_in_every_worker(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as two:
        server = Live(two, tmp_path, 0)
        token = server.token()
        # Each connection may meet the other worker; after so many both remember the token.
        assert all("result" in call(server, "GetKeyValueKeys") for _ in range(40))
        assert all("result" in call(server, "GetKeyValueKeys", token=token) for _ in range(40))
        server.kvasir("service-account", "revoke", server.credentials["key_id"])
        assert all(call(server, "GetKeyValueKeys", token=token)["error"]["code"] == 433 for _ in range(40))


# -- one application, two APIs -----------------------------------------------------------------------------------


def test_an_application_is_a_store_to_the_versori_api(server: Live) -> None:
    made = json.loads(server.kvasir("application", "create", "--name", "shared", "--json"))
    number, ulid = made["application_id"], made["id"]
    call(server, "SetKeyValueItem", application_id=number, key="узел:1", value="text", ttl=500)
    assert versori(server, "GET", f"store/{ulid}/kv/{quote('узел:1')}")["value"] == "text"
    versori(server, "PUT", f"store/{ulid}/kv/answer", {"value": {"n": 42}})
    versori(server, "PUT", f"store/{ulid}/kv/long", {"value": "v" * 2_001})
    versori(server, "PUT", f"store/{ulid}/kv/several/parts", {"value": 1})
    assert call(server, "GetKeyValueItem", application_id=number, key="answer")["result"]["value"] == '{"n": 42}'
    assert call(server, "GetKeyValueItem", application_id=number, key="long")["error"]["reason"] == "not_found"
    answer = call(server, "GetKeyValueKeys", application_id=number)
    assert [item["key"] for item in answer["items"]] == ["answer", "узел:1"]
    assert answer["total_count"] == 2
    assert len(versori(server, "GET", f"store/{ulid}/kv/long")["value"]) == 2_001


def test_a_key_of_another_api_may_look_like_this_one(server: Live) -> None:
    versori(server, "PUT", f"store/{server.server.store}/kv/platform_api/SetKeyValueItem", {"value": 1})
    assert versori(server, "GET", f"store/{server.server.store}/kv/platform_api/SetKeyValueItem")["value"] == 1


def test_behind_a_prefix(server: Live) -> None:
    assert "result" in call(server, "GetKeyValueKeys", f"{server.server.url}/voximplant/v1")


def test_metrics(server: Live) -> None:
    call(server, "GetKeyValueItem", key="nothing")
    call(server, "NoSuchMethod")
    with urllib.request.urlopen(f"{server.server.url}/metrics") as answer:
        text = answer.read().decode()
    for labels in (
        'dialect="voximplant",operation="GetKeyValueItem",outcome="not_found"',
        'dialect="voximplant",operation="unknown",outcome="invalid"',
    ):
        assert f"kvasir_requests_total{{{labels}}}" in text


def test_logs_hold_no_value_and_no_secret(server: Live) -> None:
    call(server, "SetKeyValueItem", key="k", value="a-value-nobody-should-log")
    assert "a-value-nobody-should-log" not in server.server.log
    assert server.token() not in server.server.log


# -- TLS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_plain_and_tls_at_the_same_time(server: Live, host: str) -> None:
    trust = ssl.create_default_context(cafile=str(server.ca))
    with urllib.request.urlopen(f"https://{host}:{server.https_port}/readyz", context=trust) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{server.server.url}/readyz") as answer:
        assert answer.status == 200


def test_dev_cert(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for _ in range(2):  # a second time replaces the first
        files = local_authority.write(tmp_path / "new" / "tls", now)
    ca, certificate, key = files
    assert [file.name for file in files] == ["ca.pem", "cert.pem", "key.pem"]
    assert sorted(path.name for path in ca.parent.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert loaded.not_valid_before_utc < now < loaded.not_valid_after_utc
    # Apple's bound, beyond which the system's own clients refuse it.
    assert loaded.not_valid_after_utc - loaded.not_valid_before_utc < timedelta(days=825)
    authority = x509.load_pem_x509_certificate(ca.read_bytes())
    loaded.verify_directly_issued_by(authority)
    # Mono refuses whatever is below an authority with constraints on addresses.
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value == x509.NameConstraints([x509.DNSName("localhost")], None)


# -- documents ---------------------------------------------------------------------------------------------------


def test_commands_are_named_in_the_documentation() -> None:
    page = (ROOT / "docs" / "dialects" / "voximplant.md").read_text(encoding="utf-8")
    assert [method for method in COMMANDS if f"`{method}`" not in page] == []
    numbers = re.findall(r"\b\d+\b", page.split("## Errors")[1].split("## Beyond")[0])
    assert {str(failure.code) for failure in vars(errors).values() if isinstance(failure, errors.Failure)} <= set(
        numbers
    )


def test_the_page(server: Live, tmp_path: Path) -> None:
    """Word for word: the commands beside the running server, the program with the official client, the request."""
    page = (ROOT / "docs" / "dialects" / "voximplant.md").read_text(encoding="utf-8")
    setup, start, request = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    path = f"{KVASIR.parent}:{environment()['PATH']}"
    variables = environment(PATH=path, REQUESTS_CA_BUNDLE=str(server.ca), **server.server.database_variables)
    done = subprocess.run(
        ["sh", "-eu", "-c", setup], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    number, offered = done.stdout.splitlines()
    assert (number, offered) == ("1", start.strip())
    said = subprocess.run(
        [CLIENTS / "python" / "bin" / "python", "-c", program.replace("8902", str(server.https_port))],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    listed, missing = said.stdout.splitlines()
    assert "'key': 'test:1', 'value': 'value1'" in listed
    assert missing == "496"
    asked = subprocess.run(
        ["sh", "-eu", "-c", request.replace("http://127.0.0.1:8901", server.server.url)],
        env=variables | {"PATH": f"{path}:{ROOT / 'tests' / 'shims'}", "VOXIMPLANT_TOKEN": server.token()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "test:1" in [item["key"] for item in json.loads(asked.stdout)["result"]]
