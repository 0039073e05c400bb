"""The log of slow requests: a line for each, with what it spent its time on and a hash in the place of its key.

The hash is keyed, so that nobody who has the log can try keys, and its secret is the data directory's: a key has the
same hash in every worker and after a restart, and whoever can read the secret can read the keys themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path

from kvasir.model import Space
from kvasir.server.data_directory import LOG_SECRET
from kvasir.timing import PHASES, Finished

log = logging.getLogger("kvasir.slow")

#: So many lines in a second do not hold up the others; of more there is but the number.
LINES_A_SECOND = 1_000

#: Bytes of the secret, and of a hash
SECRET_BYTES, HASH_BYTES = 32, 8


def settle(data_dir: Path) -> bytes:
    """The secret of a data directory, which is made if there is none. Servers may start at the same time."""
    path = data_dir / LOG_SECRET
    aside = path.with_name(f".{LOG_SECRET}.{os.getpid()}")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            aside.unlink(missing_ok=True)
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
        found = path.read_bytes()
        if len(found) == SECRET_BYTES:
            return found
        log.warning("%s is not the secret that it should be, so hashes of keys hold for this process alone", path)
    except OSError as error:
        log.warning("%s cannot be kept (%s), so hashes of keys hold for this process alone", path, error.strerror)
    return secrets.token_bytes(SECRET_BYTES)


class SlowLog:
    """Writes the lines."""

    def __init__(self, seconds: float, secret: bytes) -> None:
        """`seconds`: how long a request may take without a line."""
        self._seconds = seconds
        self._secret = secret
        #: When the present second began, and what was slow in it
        self._since, self._slow = 0.0, 0

    def __call__(self, finished: Finished) -> None:
        seconds = finished.ended - finished.began
        if seconds < self._seconds or not self._has_room(finished.ended):
            return
        found, timed = finished.phases(), finished.timed
        phases = {name: round(found[name].seconds * 1000, 3) if name in found else 0.0 for name in PHASES}
        fields: dict[str, object] = {
            "request": finished.id,
            "api": finished.api,
            "operation": finished.operation,
            "outcome": finished.outcome,
            "milliseconds": round(seconds * 1000, 3),
            "phases": phases,
        }
        if finished.status is not None:
            fields |= {"method": finished.method, "status": finished.status}
        said = ""
        if timed.space is not None:
            fields["space"] = timed.space.id
            said += f", space {timed.space.id}"
            if timed.key is not None:
                fields |= {"key_hash": self.hash(timed.space, timed.key), "keys": timed.keys}
                said += f", key {fields['key_hash']}" + (f" of {timed.keys}" if timed.keys > 1 else "")
        if (trace := finished.trace()) is not None:
            fields |= {"trace_id": trace[0], "parent_span_id": trace[1]}
            said += f", trace {trace[0]}"
        log.warning(
            "%s %s %s %s took %.1f ms: %s%s",
            finished.id,
            finished.api,
            finished.operation,
            finished.outcome if finished.status is None else finished.status,
            seconds * 1000,
            ", ".join(f"{name} {value:.1f}" for name, value in phases.items()),
            said,
            extra={"fields": fields},
        )

    def _has_room(self, now: float) -> bool:
        if now - self._since >= 1:
            if self._slow > LINES_A_SECOND:
                log.warning("%d more requests were slow, too many for a line each", self._slow - LINES_A_SECOND)
            self._since, self._slow = now, 0
        self._slow += 1
        return self._slow <= LINES_A_SECOND

    def hash(self, space: Space, key: bytes) -> str:
        """What stands for a packed key: 16 hexadecimal digits. Another space has another one for the same key."""
        keyed = hashlib.blake2b(key, key=self._secret, digest_size=HASH_BYTES, salt=_salt(space))
        return keyed.hexdigest()


def _salt(space: Space) -> bytes:
    return hashlib.blake2b(space.id.encode(), digest_size=hashlib.blake2b.SALT_SIZE).digest()
