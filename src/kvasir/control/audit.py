"""The audit file: who made, revoked, ended, shared or copied what. Lines of JSON, appended and synced, never a secret.

Each act has two lines of one id: "begun" is durable before anything is done, and the other tells how it went. Where the
second is missing, the process ended in between. The choice of a file belongs to the data directory, so that commands,
the console and every worker write the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from ulid import ULID

from kvasir.config.table import SETTING_OFF, Config
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Principal
from kvasir.printable import printable_json

log = logging.getLogger("kvasir.audit")

#: The file in the data directory with the choice.
CHOICE = "audit.json"


class Choice(Struct, frozen=True):
    """What `kvasir serve --audit` has chosen."""

    file: str
    when_full: Literal["refuse", "allow"]


class Act:
    """An act under way."""

    def __init__(self, subject: str) -> None:
        #: What it is done to: an id, never a secret; to be filled in when it is known
        self.subject = subject


class Audit:
    """Writes the file of one data directory. Any number of processes may."""

    def __init__(self, file: Path, *, refuses: bool) -> None:
        """`refuses`: whether an act that cannot be recorded is refused; else it is done and counted."""
        self._file = file
        self._refuses = refuses
        #: Lines that are missing in the file
        self.unrecorded = 0

    @contextlib.asynccontextmanager
    async def act(self, by: Principal, name: str, subject: str = "") -> AsyncIterator[Act]:
        """Record what is done inside. Raises `Unavailable`, before it is, if it cannot be recorded."""
        id, act = str(ULID()), Act(subject)
        told = {"act": name, "id": id, "by": by.name, "role": by.role, "organisation": by.organisation}
        if by.name == COMMAND_LINE:
            told["user"] = _user()
        await self._record(told | {"event": "begun", "subject": subject}, refuses=self._refuses)
        event, code = "abandoned", ""
        try:
            yield act
            event = "done"
        except UnknownOutcome as error:
            event, code = "unknown", error.code
            raise
        except KvasirError as error:
            event, code = "refused", error.code
            raise
        except Exception:
            event, code = "failed", "internal"
            raise
        finally:
            ended = told | {"event": event, "subject": act.subject} | ({"code": code} if code else {})
            await asyncio.shield(self._record(ended, refuses=False))

    async def _record(self, told: dict[str, str], *, refuses: bool) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")} | told
        text = printable_json(msgspec.json.encode(line).decode()) + "\n"
        try:
            await asyncio.to_thread(self._append, text.encode())
        except OSError as error:
            if refuses:
                raise Unavailable(
                    f"the audit file cannot be written ({error.strerror}), so nothing was done: make room where it is, "
                    "or start the server with --audit-full allow"
                ) from None
            self.unrecorded += 1
            log.error("%s of %s is not in the audit file: %s", told["event"], told["act"], error.strerror)

    def _append(self, line: bytes) -> None:
        """Add a line, whole and durable or not at all. Raises OSError."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, line)
                if written < len(line):  # the next byte says why
                    os.write(descriptor, line[written:])
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # the first failure is the one to tell
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raises `Unavailable` unless the file can be opened."""
        try:
            os.close(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise Unavailable(f"the audit file {self._file} cannot be opened: {error.strerror}") from None


#: What the operator is called who works on the database by a command.
COMMAND_LINE = "command line"


def settle(config: Config) -> None:
    """Make what the settings say the choice of the data directory; where they say nothing, the earlier one holds.

    Raises `Unavailable` if the file cannot be opened.
    """
    place = config.data_dir / CHOICE
    if config.audit == SETTING_OFF:
        place.unlink(missing_ok=True)
        return
    if config.audit is not None:
        file = Path(config.audit).expanduser().resolve()
        Audit(file, refuses=True).check()
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        choice = Choice(str(file), "allow" if config.audit_full == "allow" else "refuse")
        aside = place.with_name(f".{CHOICE}.{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:
            written.write(msgspec.json.encode(choice))
            written.flush()
            os.fsync(written.fileno())
        aside.replace(place)
    found = of(config)
    if found is not None:
        found.check()


def of(config: Config) -> Audit | None:
    """The audit of a data directory; None: nobody has chosen one. Raises `Unavailable` if the choice is unreadable."""
    try:
        choice = msgspec.json.decode((config.data_dir / CHOICE).read_bytes(), type=Choice)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise Unavailable(f"{config.data_dir / CHOICE}, which names the audit file, cannot be read: {error}") from None
    return Audit(Path(choice.file), refuses=choice.when_full == "refuse")


def recorded(
    audit: Audit | None, by: Principal, name: str, subject: str = ""
) -> contextlib.AbstractAsyncContextManager[Act]:
    """`Audit.act`, or nothing at all where there is no audit."""
    return _unrecorded(subject) if audit is None else audit.act(by, name, subject)


@contextlib.asynccontextmanager
async def _unrecorded(subject: str) -> AsyncIterator[Act]:
    yield Act(subject)


def _user() -> str:
    """Who runs this process, as the system knows them."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
