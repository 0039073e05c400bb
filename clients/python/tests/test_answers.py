"""The rule of repeating, as a table: which answers are followed by a second request. Without a server.

These answers are made up: no server and no proxy gives all of them when asked.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from kvasir_client import ConditionNotMet, KvasirError, Timeout, Unavailable, UnknownOutcome, errors
from kvasir_client.answers import LONGEST_PAUSE, Retries, exchange
from kvasir_client.wire import Answer, Lost, NotSent, Pause, Request, Send

from kvasir import errors as served

ATTEMPTS = 3


def problem(status: int, code: str, **members: Any) -> Answer:
    document = {"type": f"urn:kvasir:error:{code}", "code": code, "detail": "why", "status": status} | members
    return Answer(status, {"content-type": "application/problem+json"}, json.dumps(document).encode())


def foreign(status: int, body: bytes = b"<h1>no</h1>", kind: str = "text/html") -> Answer:
    return Answer(status, {"content-type": kind}, body)


def asked(outcome: Answer | NotSent | Lost, *, writes: bool) -> tuple[int, Answer | KvasirError]:
    """How often a request is sent that always has this outcome, and what comes of it."""
    steps = exchange(Request("PUT" if writes else "GET", "/v1", writes=writes), Retries(ATTEMPTS, 0.0))
    sent = 0
    step = next(steps)
    try:
        while True:
            if isinstance(step, Send):
                sent += 1
                step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
            else:
                assert isinstance(step, Pause)
                step = steps.send(None)
    except StopIteration as done:
        return sent, done.value
    except KvasirError as error:
        return sent, error


#: What comes back -> what a read becomes, what a write becomes, and whether each is sent again.
TABLE: list[tuple[str, Answer | NotSent | Lost, type[Any], bool, type[KvasirError], bool]] = [
    ("refused connection", NotSent("refused"), Unavailable, True, Unavailable, True),
    ("cut", Lost("cut"), Unavailable, True, UnknownOutcome, False),
    ("late", Lost("late", late=True), Timeout, True, UnknownOutcome, False),
    ("unavailable", problem(503, "unavailable"), Unavailable, True, Unavailable, True),
    ("timeout", problem(504, "timeout"), Timeout, True, UnknownOutcome, False),
    ("internal", problem(500, "internal"), KvasirError, True, UnknownOutcome, False),
    ("unknown_outcome", problem(500, "unknown_outcome"), UnknownOutcome, True, UnknownOutcome, False),
    ("a 503 of another code", problem(503, "maintenance"), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 500", foreign(500), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 502", foreign(502), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 503", foreign(503), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 504", foreign(504), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 408", foreign(408), Unavailable, False, UnknownOutcome, False),
    (
        "another service's problem",
        foreign(503, b'{"code":"unavailable","type":"about:blank"}', "application/problem+json"),
        Unavailable,
        True,
        UnknownOutcome,
        False,
    ),
    ("a broken problem", foreign(503, b"{", "application/problem+json"), Unavailable, True, UnknownOutcome, False),
    ("a proxy's 429", foreign(429), Unavailable, False, KvasirError, False),
    ("a line that is too long", foreign(414), errors.TooLarge, False, errors.TooLarge, False),
    ("a head that is too long", foreign(431), errors.TooLarge, False, errors.TooLarge, False),
    ("a proxy's 304 to a write", problem(304, "x"), Answer, False, KvasirError, False),
    ("a proxy's 403", foreign(403), KvasirError, False, KvasirError, False),
    ("a redirection", foreign(302), KvasirError, False, KvasirError, False),
    ("invalid", problem(400, "invalid"), errors.Invalid, False, errors.Invalid, False),
    ("too_large", problem(413, "too_large"), errors.TooLarge, False, errors.TooLarge, False),
    ("unauthorized", problem(401, "unauthorized"), errors.Unauthenticated, False, errors.Unauthenticated, False),
    ("forbidden", problem(403, "forbidden"), errors.Forbidden, False, errors.Forbidden, False),
    ("not_found", problem(404, "store_not_found"), errors.NotFound, False, errors.NotFound, False),
    ("conflict", problem(409, "conflict"), errors.Conflicting, False, errors.Conflicting, False),
    ("condition", problem(412, "conflict", versionstamp="0a"), ConditionNotMet, False, ConditionNotMet, False),
]


@pytest.mark.parametrize(
    ("outcome", "read", "read_again", "write", "write_again"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_is_sent_again(
    outcome: Answer | NotSent | Lost,
    read: type[KvasirError],
    read_again: bool,
    write: type[KvasirError],
    write_again: bool,
) -> None:
    for writes, failure, again in ((False, read, read_again), (True, write, write_again)):
        sent, got = asked(outcome, writes=writes)
        assert type(got) is failure
        assert sent == (ATTEMPTS if again else 1)


@pytest.mark.parametrize("status", [200, 201, 204, 304])
def test_good_answers_are_passed_on(status: int) -> None:
    assert asked(Answer(status, {}, b""), writes=status != 304) == (1, Answer(status, {}, b""))


@pytest.mark.parametrize(
    "broken",
    [
        problem(400, "invalid", fields=5),
        problem(412, "conflict", failed=[{"key": 5}]),
        foreign(400, b"[" * 100_000, "application/problem+json"),
    ],
    ids=["fields", "key", "deep"],
)
def test_a_failure_of_a_strange_form_is_a_failure(broken: Answer) -> None:
    assert isinstance(asked(broken, writes=True)[1], KvasirError)


def test_a_condition_says_what_is_there() -> None:
    _, got = asked(problem(412, "conflict", versionstamp="00ab"), writes=True)
    assert isinstance(got, ConditionNotMet)
    assert got.present == "00ab"
    _, got = asked(problem(412, "conflict", versionstamp=None), writes=True)
    assert isinstance(got, ConditionNotMet)
    assert got.present is None


def test_a_failure_says_all_that_the_server_has_said() -> None:
    fields = [{"field": "ttl", "message": "must be more"}]
    _, got = asked(problem(404, "store_not_found", fields=fields, request_id="r1"), writes=False)
    assert isinstance(got, errors.NotFound)
    assert (got.reason, got.status, got.request_id, got.fields) == (
        "store_not_found",
        404,
        "r1",
        (("ttl", "must be more"),),
    )


def test_pauses_grow_and_end() -> None:
    retries = Retries(10, 0.1)
    for attempt in range(1, 20):
        longest = min(0.1 * 2 ** (attempt - 1), LONGEST_PAUSE)
        assert longest / 2 <= retries.pause(attempt) <= longest
    assert 1.0 <= retries.pause(1, 1.0) <= 1.1
    assert retries.pause(1, 3_600) < LONGEST_PAUSE + 1


@pytest.mark.parametrize("kind", served.KvasirError.__subclasses__(), ids=lambda kind: str(kind.__name__))
def test_every_failure_of_the_server_has_its_like(kind: type[served.KvasirError]) -> None:
    if kind.__module__ == served.__name__:
        mirror = getattr(errors, kind.__name__)
        assert (mirror.code, mirror.retryable) == (kind.code, kind.retryable)
        assert errors.BY_CODE[kind.code] is mirror
