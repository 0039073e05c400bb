"""Exit statuses: what a script learns of a failure without reading words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NoReturn

import typer
from kvasir_client import errors

from kvasir.cli.terminal import complain
from kvasir.errors import NotFound

DONE, FAILED, USAGE, UNAVAILABLE, NOT_FOUND, CONDITION, NOT_ALLOWED, UNKNOWN = range(8)

#: Every class of failure; any other is `FAILED`.
STATUSES: dict[type[errors.KvasirError], int] = {
    errors.Invalid: USAGE,
    errors.TooLarge: USAGE,
    errors.Unavailable: UNAVAILABLE,
    errors.Timeout: UNAVAILABLE,
    errors.NotFound: NOT_FOUND,
    errors.ConditionNotMet: CONDITION,
    errors.Conflicting: CONDITION,
    errors.Unauthenticated: NOT_ALLOWED,
    errors.Forbidden: NOT_ALLOWED,
    errors.UnknownOutcome: UNKNOWN,
}

#: What the server calls something that an option has given; a verb sends one mutation.
_OPTION = re.compile(r"(?:mutations\[0\]\.)?(by|initial|ttl|expires_at)(?= )").match


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Failures of the client become a message on standard error and an exit status."""
    try:
        yield
    except NotFound as error:  # a context
        fail(error.message, NOT_FOUND)
    except errors.KvasirError as error:
        request = f" (request {error.request_id})" if error.request_id and type(error) not in STATUSES else ""
        fail(f"{_by_option(error.message)}{request}", STATUSES.get(type(error), FAILED))


def _by_option(message: str) -> str:
    """A message that begins with what an option has given, by the name of the option."""
    found = _OPTION(message)
    return f"--{found[1].replace('_', '-')}{message[found.end() :]}" if found else message


def fail(message: str, status: int = FAILED) -> NoReturn:
    """End with a message and an exit status."""
    complain(message)
    raise typer.Exit(status)
