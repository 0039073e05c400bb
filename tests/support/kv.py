"""Runs `kvasir kv …` against a server as a person or a script does: with pipes, or in a terminal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.serving import KVASIR, PATIENCE_SECONDS, Server, environment

#: Between two attempts at something that a busy machine may be too slow for.
AGAIN_SECONDS = 5.0


class Kv:
    """The commands, with the variables that name a server, a store and an access key."""

    def __init__(self, server: Server, store: str, home: Path) -> None:
        self.variables = {
            "KVASIR_URL": server.url,
            "KVASIR_KEY": server.key,
            "KVASIR_STORE": store,
            "XDG_CONFIG_HOME": str(home),
            "NO_PROXY": "*",
            "COLUMNS": "120",
        }

    def environment(self, variables: dict[str, str] | None) -> dict[str, str]:
        return environment(**(self.variables | (variables or {})))

    def run(
        self,
        *arguments: str,
        status: int = 0,
        input: bytes = b"",
        group: str = "kv",
        variables: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """With pipes for input and output."""
        done = subprocess.run(
            [str(KVASIR), group, *arguments],
            input=input,
            capture_output=True,
            env=self.environment(variables),
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr
        return done

    def __call__(
        self, *arguments: str, status: int = 0, input: bytes = b"", variables: dict[str, str] | None = None
    ) -> str:
        """What a verb prints on standard output."""
        return self.run(*arguments, status=status, input=input, variables=variables).stdout.decode()

    def complaint(
        self, *arguments: str, status: int, input: bytes = b"", variables: dict[str, str] | None = None
    ) -> str:
        """What a verb that fails says; it has no result."""
        done = self.run(*arguments, status=status, input=input, variables=variables)
        assert done.stdout == b""
        return done.stderr.decode()

    def json(self, *arguments: str, **options: Any) -> Any:
        """The one result of a verb."""
        return json.loads(self(*arguments, "--json", **options))

    @contextlib.contextmanager
    def terminal(
        self, *arguments: str, group: str = "kv", variables: dict[str, str] | None = None
    ) -> Iterator[Terminal]:
        """A verb in a terminal of its own."""
        with terminal([str(KVASIR), group, *arguments], self.environment(variables)) as opened:
            yield opened


class Terminal:
    """A process in a pseudo-terminal, as its user sees it."""

    def __init__(self, pid: int, file: int) -> None:
        self._pid = pid
        self._file = file
        self._status: int | None = None
        #: All that it has shown so far, line ends as \\n
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Type some text; \\n is the Enter key, \\x03 is Ctrl-C."""
        os.write(self._file, text.encode())

    def expect(self, pattern: str, again: str = "") -> None:
        """Wait until it has shown this since the last call; type `again` every few seconds meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        repeat = time.monotonic() + AGAIN_SECONDS
        while not (found := re.search(pattern, self.shown[self._seen :])):
            assert time.monotonic() < deadline, f"waited in vain for {pattern!r} in {self.shown!r}"
            if again and time.monotonic() > repeat:
                self.type(again)
                repeat = time.monotonic() + AGAIN_SECONDS
            if not self._read():
                found = re.search(pattern, self.shown[self._seen :])
                assert found, f"it ended without {pattern!r}: {self.shown!r}"
                break
        self._seen += found.end()

    def _read(self) -> bool:
        """Read what there is, if anything comes within a moment; False at the end."""
        if not select.select([self._file], [], [], 0.2)[0]:
            return True
        try:
            piece = os.read(self._file, 65_536)
        except OSError as error:  # how a pseudo-terminal of Linux ends
            if error.errno != errno.EIO:
                raise
            return False
        self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def end(self, again: str = "") -> int:
        """Read until it ends; its exit status. Types `again` every few seconds meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        repeat = time.monotonic() + AGAIN_SECONDS
        while self._read():
            assert time.monotonic() < deadline, f"it does not end: {self.shown!r}"
            if again and time.monotonic() > repeat:
                self.type(again)
                repeat = time.monotonic() + AGAIN_SECONDS
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def close(self) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
        os.close(self._file)


@contextlib.contextmanager
def terminal(command: list[str], variables: dict[str, str]) -> Iterator[Terminal]:
    """A process in a pseudo-terminal; it is ended afterwards."""
    pid, file = pty.fork()
    if pid == 0:
        try:
            os.execve(command[0], command, variables | {"TERM": "xterm"})
        finally:
            os._exit(127)
    opened = Terminal(pid, file)
    try:
        yield opened
    finally:
        opened.close()
