"""Looking into values by the paths of strangers: at once where that is quick, else in a thread; and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kvasir.dialects.nemesis.commands.context import INLINE_BYTES, CommandContext
from kvasir.dialects.nemesis.jsonpath.compiler import Budget, TooMuch
from kvasir.errors import TooLarge

#: An evaluation of more steps, or more bytes of values, runs in a thread.
_INLINE_STEPS = 2_000

T = TypeVar("T")


async def evaluate(context: CommandContext, size: int, budget: Budget, work: Callable[[Budget], T]) -> T:
    """The result of `work`, computed here if that is quick, else in a thread. Raises `TooLarge` beyond the budget."""
    if size <= INLINE_BYTES and budget.left >= _INLINE_STEPS:
        inline = Budget(_INLINE_STEPS)
        try:
            result = work(inline)
        except TooMuch:
            pass
        else:
            budget.left -= _INLINE_STEPS - inline.left
            return result
    try:
        budget.spend(size // 64)
        return await asyncio.get_running_loop().run_in_executor(context.threads, work, budget)
    except asyncio.CancelledError:
        budget.left = -(2**62)  # which ends it at its next step
        raise
    except TooMuch as reason:
        steps = f"the path takes more than {context.limits.path_steps:,} steps; search fewer keys or be more specific"
        raise TooLarge(str(reason) or steps) from None
