"""For tests of the NemesisDB API: the client people use, a bare socket, and a listener in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.nemesis.commands.context import Saves
from kvasir.engine import Clock
from kvasir.engines.numbering import wall_clock
from kvasir.limits import Limits, NemesisLimits, WebSocketLimits
from kvasir.listeners.websocket import ROUND_SECONDS, WebSocketListener
from kvasir.model import Principal
from kvasir.store.store import Store
from tests.support.engines import new_engine
from tests.support.organisations import ORGANISATION


class Client:
    """A connection: `ask` sends a message and returns the next reply."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: Any) -> None:
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def receive(self) -> Any:
        return json.loads(self.connection.recv(timeout=30))

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()

    def do(self, command: str, **parameters: Any) -> Any:
        """Send a command; the body of its reply."""
        reply = self.ask({command: parameters})
        return reply[command + "_RSP"]

    def session(self, name: str = "test", **parameters: Any) -> str:
        """The token of a new session."""
        return str(self.do("SH_NEW", name=name, **parameters)["tkn"])


@contextlib.contextmanager
def client(url: str, **options: Any) -> Iterator[Client]:
    """A client with the library that people use."""
    with connect(url, compression=None, max_size=None, **options) as connection:
        yield Client(connection)


class Local:
    """A listener over the memory engine, in a thread of this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: WebSocketListener, store: Store) -> None:
        self.loop = loop
        self.listener = listener
        self.store = store
        self.port = listener.port
        self.url = f"ws://127.0.0.1:{self.port}"
        self.observed: list[tuple[str, str, str]] = []

    def call(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, run in the listener's thread."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)


@contextlib.contextmanager
def local(
    *,
    sockets: WebSocketLimits | None = None,
    commands: NemesisLimits | None = None,
    origins: tuple[str, ...] = (),
    round_seconds: float = ROUND_SECONDS,
    saves: Saves | None = None,
    clock: Clock = wall_clock,
    limits: Limits | None = None,
    engine: Any = None,
) -> Iterator[Local]:
    """A listener with limits of its own, for what a real server would make too slow or too large to test."""
    started = threading.Event()
    made: list[Local] = []
    starting: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    under = engine or new_engine(clock)

    async def start() -> None:
        store = Store(under, limits or Limits(), clock)
        observed: list[tuple[str, str, str]] = []
        dialect = NemesisDialect(
            store,
            Principal(ORGANISATION, "developer", "test"),
            limits=commands or NemesisLimits(),
            default_profile="session",
            saves=saves,
            observe=lambda dialect, operation, outcome, _, n: observed.extend([(dialect, operation, outcome)] * n),
        )
        listener = WebSocketListener(
            dialect, sockets or WebSocketLimits(), origins=origins, round_seconds=round_seconds
        )
        await listener.start(socket.create_server(("127.0.0.1", 0)))
        server = Local(loop, listener, store)
        server.observed = observed
        made.append(server)
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        starting.append(loop.create_task(start()))
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(30)
        yield made[0]
    finally:
        asyncio.run_coroutine_threadsafe(_ended(made[0].listener), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _ended(listener: WebSocketListener) -> None:
    """Stop; what disconnected clients have started ends with the loop, as it does in a server."""
    await listener.stop(5)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


# -- a bare socket ------------------------------------------------------------------------------------------------

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0


def frame(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0) -> bytes:
    """A frame as a client sends it."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    mask = b"\x9a\x31\xc4\x5e"  # always the same, so that tests have the same names everywhere
    if len(payload) < 126:
        header = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 65_536:
        header = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        header = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    key = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key[: len(payload)], "big")
    return header + mask + masked.to_bytes(len(payload), "big")


class Raw:
    """A socket after the upgrade, for frames that no library would send."""

    def __init__(self, port: int, headers: str = "", path: str = "/", tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def receive(self) -> tuple[int, bytes] | None:
        """(opcode, payload) of the next frame; None if the connection has ended without one."""
        try:
            head = self._file.read(2)
        except ConnectionResetError:
            return None
        if len(head) < 2:
            return None
        length = head[1] & 0x7F
        if length > 125:
            length = int.from_bytes(self._file.read(2 if length == 126 else 8), "big")
        return head[0] & 15, self._file.read(length)

    def closed_with(self) -> int | None:
        """The code of the close frame, whatever comes before it; None if there is none."""
        while (got := self.receive()) is not None:
            if got[0] == CLOSE:
                return int.from_bytes(got[1][:2], "big")
        return None

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()
