"""Runs `kvasir dev` for a test session, and makes spaces in it. The server ends with the process that started it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from kvasir.testing.controls import Clock, Controls, Faults, requests

#: The command `kvasir` of the environment that the tests run in, whatever is on PATH.
KVASIR = (sys.executable, "-c", "from kvasir.cli import main; main()")

#: How long a server may take to end when it is asked to.
PATIENCE_SECONDS = 10.0


class Server:
    """A running `kvasir dev`. `facts` is the line it has printed; what it moves is the whole server's."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        """Start it and wait until it serves. Raises RuntimeError if it does not."""
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            [*KVASIR, "dev", "--until-stdin-closes", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            self._end()
            raise RuntimeError(f"kvasir dev ended with status {self._process.returncode} before it served")
        self.facts: dict[str, Any] = json.loads(line)
        self.controls = Controls(**self.facts["control"])
        self.clock = Clock(self.controls, None)
        self.faults = Faults(self.controls, None)

    @property
    def url(self) -> str:
        """Base URL of HTTP."""
        return str(self.facts["http"])

    @property
    def key(self) -> str:
        """The owner's access key."""
        return str(self.facts["key"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def requests(self, **matching: str | int) -> list[dict[str, Any]]:
        """The requests so far, oldest first; `matching`: api, operation, space, after."""
        return requests(self.controls, None, **matching)

    def reset(self) -> None:
        """Go back to the seed, on the machine's time, without faults."""
        self.controls.call("POST", "reset")

    def space(self, kind: str = "store", name: str | None = None) -> Space:
        """A store, application or session of its own. End it when the test is over."""
        return Space(self, self.controls.call("POST", "spaces", {"kind": kind, "name": name}))

    def stop(self) -> None:
        """End it."""
        self.controls.close()
        self._end()

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Space:
    """A space for one test. What it moves concerns this space alone."""

    def __init__(self, server: Server, facts: dict[str, Any]) -> None:
        self._server = server
        #: What its API calls it by: id, kind and name, for an application application_id, for a session token
        self.facts = facts
        self.clock = Clock(server.controls, self.id)
        self.faults = Faults(server.controls, self.id)

    @property
    def id(self) -> str:
        """Its ULID."""
        return str(self.facts["id"])

    def requests(self, **matching: str | int) -> list[dict[str, Any]]:
        """The requests to this space so far, oldest first; `matching`: api, operation, after."""
        return requests(self._server.controls, self.id, **matching)

    def snapshot(self) -> str:
        """A token to come back to what there is now with `restore`."""
        return str(self._server.controls.call("POST", "snapshot", space=self.id)["token"])

    def restore(self, token: str) -> None:
        """Go back to a snapshot."""
        self._server.controls.call("POST", f"restore/{token}")

    def end(self) -> None:
        """End it, with its clock and its faults."""
        self._server.controls.call("DELETE", f"spaces/{self.id}")
