"""A real server for the Voximplant API, set up as its users would."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jwt

from tests.support.cli import Commands, run
from tests.support.serving import Server, free_ports, serving
from tests.support.voximplant import private_key

ROOT = Path(__file__).parents[2]
#: Where `make .venv/clients/ready` puts the official clients
CLIENTS = ROOT / ".venv" / "clients"

#: application_id -> name, as in the transcripts
APPLICATIONS = {1: "myapp", 12345: "CustomerSupportApp"}


class Live:
    """The running server, its TLS address and a Developer's credentials."""

    def __init__(self, server: Server, directory: Path, https_port: int) -> None:
        self.server = server
        self.directory = directory
        self.https_port = https_port
        self.ca = directory / "tls" / "ca.pem"
        self.credentials_file = directory / "credentials.json"
        for id, name in APPLICATIONS.items():
            self.kvasir("application", "create", "--name", name, "--id", str(id))
        self.credentials = self.account("Developer")
        self.credentials_file.write_text(json.dumps(self.credentials))

    def kvasir(self, *command: str) -> str:
        """Standard output of an administrative command, run beside the server."""
        return Commands(self.server)(*command).stdout

    def account(self, role: str, *options: str) -> dict[str, Any]:
        """credentials.json of a new service account."""
        credentials: dict[str, Any] = json.loads(self.kvasir("service-account", "create", "--role", role, *options))
        return credentials

    def token(self, credentials: dict[str, Any] | None = None) -> str:
        """A token as the Python client makes it, for an hour."""
        credentials = credentials or self.credentials
        now = int(time.time())
        payload = json.dumps({"iss": str(credentials["account_id"]), "iat": now - 5, "exp": now + 3_595}).encode()
        return jwt.PyJWS().encode(
            payload, private_key(credentials["private_key"]), "RS256", {"kid": credentials["key_id"]}
        )

    def connect(self) -> socket.socket:
        """A plain connection whose pieces go out as they are sent."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextlib.contextmanager
def live(directory: Path, *more: str) -> Iterator[Live]:
    """Start a server with TLS by `kvasir dev-cert`, and more options; end it afterwards."""
    tls = directory / "tls"
    run("dev-cert", str(tls))
    (https_port,) = free_ports(1)
    options = [
        "--https",
        f"127.0.0.1:{https_port}",
        "--tls-cert",
        str(tls / "cert.pem"),
        "--tls-key",
        str(tls / "key.pem"),
    ]
    with serving(directory, *options, *more) as server:
        yield Live(server, directory, https_port)


def read_answer(stream: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer, which has a Content-Length."""
    if not (status := stream.readline()):
        raise ConnectionResetError("the server closed the connection")
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return int(status.split()[1]), headers, stream.read(int(headers["content-length"]))
