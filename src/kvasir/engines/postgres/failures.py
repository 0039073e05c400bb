"""What went wrong in the database -> the error the caller gets. One table; pure."""

from __future__ import annotations

import logging
import re
from typing import Any

import asyncpg

from kvasir.engines.postgres.write_function import NOT_INCREMENTED
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome

log = logging.getLogger("kvasir.postgres")

#: SQLSTATEs, or classes of them, after which nothing has happened and the same request may succeed later.
RETRY: dict[str, str] = {
    "25006": "the database is currently a read-only standby",
    "40001": "another transaction was in the way",
    "40P01": "another transaction was in the way",
    "55P03": "a lock was not released in time",
    "57014": "the database cancelled the statement because it took too long",
    "57P03": "the database is starting or stopping",
    "53100": "the database's disk is full: make room",
    "53300": "the database has no connection left; raise its max_connections or lower --postgres-connections",
    "53": "the database is short of resources",
    "58": "the database server's operating system reported an error",
}
#: With these a server ends the connection, whatever it was doing.
ENDED = ("57P01", "57P02", "57P05", "08")
#: With these severities the server says that this session has ended. A node of a cluster passes on what another node
#: told it as an ERROR, whatever that one has ended.
FATAL = ("FATAL", "PANIC")
#: States that come with FATAL where a session has not begun, and nowhere else.
UNBEGUN = ("53300", "57P03")
#: States of which nobody can say what has happened: XX is an error inside the server, and Citus uses it for a commit
#: that failed on another node.
UNKNOWABLE = (*ENDED, "XX")

#: A node of the cluster that another could not reach, in Citus' words.
_NODE = re.compile(r"(?:remote node \S+@|connections? to the node |could not connect to |command on )([^\s@]+:\d+)")
#: What the other then says when it could send nothing there.
_NOTHING_SENT = re.compile(
    r"Connection refused|No route to host|could not translate host name|timeout expired|could not establish any"
    r"|the database system is (?:starting up|shutting down|in recovery mode|not (?:yet )?accepting connections)"
)

#: What the driver raises when a connection breaks, in whatever state it was.
BROKEN = (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)

#: The routine of PostgreSQL in which a commit waits for its standby. A warning from it says that it waited in vain;
#: a node passes on such a warning of another in these words.
WAITS_FOR_STANDBY = "SyncRepWaitForLSN"
_COMMITTED_LOCALLY = "The transaction has already committed locally"
#: The routine of Citus that commits on a node what all nodes have prepared.
COMMITS_ON_NODE = "FinishRemoteTransactionCommit"

UNKNOWN = "the connection to the database broke during the commit; the write may or may not have happened"
NOT_EVERYWHERE = "the change was committed, but not all nodes of the database have confirmed it: make it again"
NOT_REPLICATED = "the write was committed, but no standby has confirmed it; if the primary fails now, it may be lost"


def connection_lost(error: BaseException) -> bool:
    """Whether the connection broke, or must not be used any more, so that a fresh one may do better."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        severity = error.severity_en or error.severity
        return state == "25006" or (severity in FATAL if severity else state.startswith(ENDED))
    return isinstance(error, BROKEN) and not isinstance(error, ValueError)


def node_of(error: BaseException) -> str | None:
    """ "HOST:PORT" of the node of a cluster that could not be reached, on a connection that is sound; else None."""
    if not isinstance(error, asyncpg.PostgresError) or connection_lost(error):
        return None
    if not (error.sqlstate or "").startswith((*ENDED, "57P03", "XX")):
        return None
    node = _NODE.search(f"{error.args[0] if error.args else ''} {error.context or ''}")
    return node[1] if node else None


def not_confirmed(warning: Any) -> str | None:
    """What a warning that came with a commit says of its outcome; None if it says nothing of it."""
    routine = getattr(warning, "server_source_function", None)
    if routine == COMMITS_ON_NODE:
        return NOT_EVERYWHERE
    text = f"{getattr(warning, 'message', '')} {getattr(warning, 'detail', '')}"
    return NOT_REPLICATED if routine == WAITS_FOR_STANDBY or _COMMITTED_LOCALLY in text else None


def failed_reading(error: Exception) -> KvasirError:
    """The error for a statement that changes nothing."""
    if isinstance(error, KvasirError):
        return error
    if isinstance(error, TimeoutError):
        return Unavailable("the database did not answer in time; try again")
    if connection_lost(error):
        return Unavailable("the connection to the database broke; try again")
    if node := node_of(error):
        return Unavailable(f"the node {node} of the database does not answer; try again")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(ENDED):
        return Unavailable("a node of the database does not answer; try again")
    return _retryable(error) or _unexpected(error, "the server failed to read")


class WriteRefused(KvasirError):
    """One of several writes of a transaction was refused, by its number; so nothing of the transaction happened."""

    def __init__(self, number: int) -> None:
        super().__init__("a write was refused; nothing of its transaction was written")
        self.number = number


def failed_writing(error: Exception) -> KvasirError:
    """The error for a write that had been sent: `Unavailable` only where it is certain that nothing happened."""
    if isinstance(error, KvasirError):
        return error
    if getattr(error, "sqlstate", None) == NOT_INCREMENTED:
        return WriteRefused(int(getattr(error, "detail", 0)))
    if isinstance(error, asyncpg.PostgresError):
        node = node_of(error)
        if node and _NOTHING_SENT.search(str(error)):
            return Unavailable(f"the node {node} of the database cannot be reached; nothing was written, try again")
        if not _ended_amid(error) and (retryable := _retryable(error)):
            return retryable
        if not connection_lost(error) and not (error.sqlstate or "").startswith(UNKNOWABLE):
            # The server refused a statement and so rolled back its transaction.
            return _unexpected(error, "the server failed to apply this write; nothing of it was written")
    elif isinstance(error, asyncpg.InternalClientError) and "cannot switch to state" in str(error):
        # The driver had just learned that the server ended this connection, and sent nothing.
        return Unavailable("the database closed the connection; nothing was written, try again")
    elif isinstance(error, ValueError):
        return _unexpected(error, "the server failed to apply this write; nothing of it was written")
    log.error("a write has an unknown outcome: %s %s", type(error).__name__, getattr(error, "sqlstate", None) or "")
    return UnknownOutcome(UNKNOWN + ": read before writing again")


def failed_connecting(error: Exception) -> Unavailable:
    """The error when no connection could be made; nothing was sent."""
    if isinstance(error, asyncpg.PostgresError):
        # Else a wrong password or an unknown database: the server's text has no secret in it.
        return _retryable(error) or Unavailable(f"the database refused the connection: {error}")
    if isinstance(error, TimeoutError):
        return Unavailable("the database does not answer; nothing was written, try again")
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return Unavailable("the database is currently a read-only standby; nothing was written, try again")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        # The URL was checked with the settings; the driver reads these by itself. Other texts could quote a password.
        detail = f": {error}" if isinstance(error, asyncpg.exceptions.ClientConfigurationError) else ""
        return Unavailable(f"a PG… variable or the service file has a value that cannot be used{detail}")
    return Unavailable("the database cannot be reached; nothing was written, try again")


def _ended_amid(error: asyncpg.PostgresError) -> bool:
    """Whether the server ended the session over this. A full disk under its log ends all of it, amid commits."""
    return (error.severity_en or error.severity) in FATAL and (error.sqlstate or "") not in UNBEGUN


def _retryable(error: Exception) -> Unavailable | None:
    state = getattr(error, "sqlstate", None) or ""
    reason = RETRY.get(state) or RETRY.get(state[:2])
    return Unavailable(f"{reason}; nothing was written, try again") if reason else None


def _unexpected(error: Exception, message: str) -> KvasirError:
    # Not in the server's words: they may quote keys and values.
    log.error("%s: %s %s", message, type(error).__name__, getattr(error, "sqlstate", ""))
    return KvasirError(message)
