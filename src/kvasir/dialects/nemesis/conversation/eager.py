"""Coroutines begun without a task. Pure asyncio."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any

#: What `start` gives for a coroutine that is at its end.
DONE = object()


def start(work: Coroutine[Any, Any, None]) -> Any:
    """Run a coroutine up to where it must wait: what it waits for, for `going_on`, or `DONE` if it never did.

    Most commands need not wait, and a task each would cost more than they do.
    """
    try:
        return work.send(None)
    except StopIteration:
        return DONE


async def going_on(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """The rest of a coroutine that `start` started."""
    await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            try:
                given = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(given)
        except StopIteration:
            return
