"""Faults that tests order: which requests they strike, how often, and what then happens. Pure.

The same seed and the same requests always strike the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from msgspec import Struct

from kvasir import errors
from kvasir.errors import Invalid, KvasirError
from kvasir.testbed.calls import Api, Call, wrong_operation

#: How many rules there may be at a time, and the longest delay: ten minutes.
MAX_RULES, MAX_DELAY_MS = 1_000, 600_000

#: The failures of docs/errors.md by their codes, and "internal" for a fault of the server.
FAILURES: dict[str, type[KvasirError]] = {
    **{kind.code: kind for kind in KvasirError.__subclasses__() if kind.__module__ == errors.__name__},
    KvasirError.code: KvasirError,
}

#: What else may happen: nothing but the delay; the connection is cut before anything happens, or when it has happened;
#: a rate limit; a code of the service's own; a WebSocket is closed.
DELAY, DROP, COMMIT_THEN_DROP, RATE_LIMITED, ERROR, CLOSE = (
    "delay",
    "drop",
    "commit_then_drop",
    "rate_limited",
    "error",
    "close",
)
OUTCOMES = (*FAILURES, DELAY, DROP, COMMIT_THEN_DROP, RATE_LIMITED, ERROR, CLOSE)
_NEEDS_CODE = (ERROR, CLOSE)


class Rule(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What strikes which requests. A member that is left out strikes any."""

    outcome: str = DELAY
    api: Api | None = None
    operation: str | None = None
    #: ULID
    space: str | None = None
    #: A key of one part as text, or any as its parts
    key: str | list[str] | None = None
    #: How many requests it strikes; None: any number
    times: int | None = None
    probability: float = 1.0
    #: Of the random numbers that decide with a probability below 1, and whether an unknown outcome has happened
    seed: int = 0
    delay_ms: int = 0
    #: With "error" a code of the Voximplant API, with "close" one of WebSocket
    code: int | None = None
    #: With "unknown_outcome": whether it happens; None: now this, now that
    happens: bool | None = None


class Strike(Struct, frozen=True):
    """What a rule does to one request."""

    outcome: str
    delay_ms: int
    code: int
    #: Whether the request takes effect, whatever is answered
    happens: bool


class Faults:
    """The rules in force, oldest first."""

    def __init__(self, operations: Mapping[str, tuple[str, ...]]) -> None:
        """`operations`: by API, those that a rule may name."""
        self._operations = operations
        self._active: list[_Active] = []

    def add(self, rules: Sequence[Rule]) -> None:
        """Add rules, all or none. Raises `Invalid` that names the rule and the member."""
        for at, rule in enumerate(rules):
            _check(rule, at)
            if rule.operation is not None and (words := wrong_operation(self._operations, rule.api, rule.operation)):
                raise _wrong(at, "operation", words)
        if len(self._active) + len(rules) > MAX_RULES:
            raise Invalid(f"there may be {MAX_RULES:,} faults at a time; DELETE those that are no longer needed")
        self._active += [_Active(rule) for rule in rules]

    def clear(self, space: str | None = None) -> None:
        """Remove the rules that name this space; without one, all."""
        self._active = [] if space is None else [each for each in self._active if each.rule.space != space]

    def rules(self) -> list[Rule]:
        """Those in force, with what is left of their `times`."""
        return [each.rule for each in self._active]

    def strike(self, call: Call) -> Strike | None:
        """What happens to a request, by the first rule that strikes it."""
        for active in self._active:
            if active.matches(call) and active.is_due():
                if active.rule.times == 0:
                    self._active.remove(active)
                return active.strike()
        return None


class _Active:
    """A rule in force."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._random = random.Random(rule.seed)  # noqa: S311  # it has to repeat
        self._key = (rule.key,) if isinstance(rule.key, str) else None if rule.key is None else tuple(rule.key)

    def matches(self, call: Call) -> bool:
        rule = self.rule
        return (
            rule.api in (None, call.api)
            and rule.operation in (None, call.operation)
            and rule.space in (None, call.space)
            and (self._key is None or self._key in call.keys)
        )

    def is_due(self) -> bool:
        """Whether it strikes this time; counts it."""
        if self.rule.probability < 1 and self._random.random() >= self.rule.probability:
            return False
        if self.rule.times is not None:
            self.rule.times -= 1
        return True

    def strike(self) -> Strike:
        rule = self.rule
        happens = rule.outcome in (DELAY, COMMIT_THEN_DROP)
        if rule.outcome == errors.UnknownOutcome.code:
            happens = self._random.random() < 0.5 if rule.happens is None else rule.happens
        return Strike(rule.outcome, rule.delay_ms, rule.code or 0, happens)


def _check(rule: Rule, at: int) -> None:
    wrong = None
    if rule.outcome not in OUTCOMES:
        wrong = "outcome", f"must be one of: {', '.join(OUTCOMES)}"
    elif (rule.code is None) == (rule.outcome in _NEEDS_CODE):
        wrong = "code", f"belongs to the outcomes {' and '.join(_NEEDS_CODE)}, which need it, and to no other"
    elif rule.outcome == CLOSE and rule.api != "nemesis":
        wrong = "outcome", 'closes a WebSocket, so api must be "nemesis"'
    elif rule.outcome == ERROR and rule.api != "voximplant":
        wrong = "outcome", 'is a code of the Voximplant API, so api must be "voximplant"'
    elif rule.happens is not None and rule.outcome != errors.UnknownOutcome.code:
        wrong = "happens", f"belongs to the outcome {errors.UnknownOutcome.code} alone"
    elif rule.times is not None and rule.times < 1:
        wrong = "times", "must be at least 1"
    elif not 0 <= rule.probability <= 1:
        wrong = "probability", "must be a number from 0 to 1"
    elif not 0 <= rule.delay_ms <= MAX_DELAY_MS:
        wrong = "delay_ms", f"must be from 0 to {MAX_DELAY_MS:,}"
    if wrong is not None:
        raise _wrong(at, *wrong)


def _wrong(at: int, field: str, words: str) -> Invalid:
    return Invalid(f"fault {at + 1}: {field} {words}", fields=((f"[{at}].{field}", words),))
