"""PgBouncer (Debian's package) in transaction mode, in front of a PostgreSQL server of the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.postgres import PostgresServer
from tests.support.serving import PATIENCE_SECONDS, free_ports, wait_until

#: Debian has it where only root's PATH leads.
PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
logfile = {folder}/log
"""


class PgBouncer:
    """`pool_size`: processes of the server for each database."""

    def __init__(self, server: PostgresServer, pool_size: int = 3) -> None:
        assert PROGRAM is not None
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="kvasir-pgbouncer-"))
        (self.port,) = free_ports(1)
        file = self._folder / "pgbouncer.ini"
        self._user = urlsplit(server.url()).username
        text = SETTINGS.format(
            server=server.port, user=self._user, port=self.port, pool_size=pool_size, folder=self._folder
        )
        file.write_text(text, encoding="utf-8")
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if user is not None:
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        as_other = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process = subprocess.Popen(
            [PROGRAM, "-q", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **as_other,  # type: ignore[call-overload]
        )

    def __enter__(self) -> PgBouncer:
        wait_until(self._answers, "PgBouncer takes connections")
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text(encoding="utf-8")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS):
            return True
        return False

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self, name: str) -> str:
        """Create an empty database; its URL by way of this."""
        self._server.new_database(name)
        return f"postgresql://{self._user}@127.0.0.1:{self.port}/{name}"
