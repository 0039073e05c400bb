"""The table of the methods. A row in `COMMANDS` is all that makes a method known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from kvasir.dialects.ignored import Known, Tables
from kvasir.dialects.voximplant import commands
from kvasir.store.permissions import READERS, WRITERS


class Command(Struct, frozen=True):
    """A method of the API."""

    #: Returns the response body.
    run: Callable[[commands.Call], Awaitable[bytes]]
    #: Who may call it. Every published role may call all; "viewer" is Kvasir's own.
    roles: frozenset[str]
    #: Its parameters
    known: Known


def _names(text: str) -> Known:
    return dict.fromkeys(text.split())


#: Parameters of every method: which method, whose application, in what form; and, published as ways to log in from the
#: time before tokens, what some programs still send. They have no effect beside a token.
_COMMON = _names(
    "cmd application_id application_name account_id output format"
    " account_name account_email account_password api_key session_id"
)


def _command(
    run: Callable[[commands.Call], Awaitable[bytes]], roles: frozenset[str], parameters: str, **arrays: Known
) -> Command:
    """A row; `arrays`: parameters that are arrays of objects, with what these may have."""
    return Command(run, roles, {**_COMMON, **_names(parameters), **{name: [arrays[name]] for name in arrays}})


COMMANDS: dict[str, Command] = {
    "SetKeyValueItem": _command(commands.set_item, WRITERS, " ".join(commands.ITEM)),
    "GetKeyValueItem": _command(commands.get_item, READERS, "key"),
    "GetKeyValueItems": _command(commands.list_items, READERS, "key count offset cursor"),
    "GetKeyValueKeys": _command(commands.list_keys, READERS, "key count offset cursor"),
    "DelKeyValueItem": _command(commands.delete_item, WRITERS, "key if_version if_absent"),
    "IncrKeyValueItem": _command(commands.increment, WRITERS, "key by ttl expires_at"),
    "TouchKeyValueItem": _command(commands.touch, WRITERS, "key ttl expires_at"),
    "SetKeyValueItems": _command(commands.set_items, WRITERS, "ttl expires_at", items=commands.ITEM),
    "DelKeyValueItems": _command(commands.delete_items, WRITERS, "keys prefix"),
}
KNOWN = Tables({name: command.known for name, command in COMMANDS.items()})
