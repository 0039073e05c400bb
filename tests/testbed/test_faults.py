"""Ordered failures: each row of docs/errors.md in every API, lost connections, and what a rule strikes."""

from __future__ import annotations

from typing import Any

import pytest

from kvasir import errors
from kvasir.dialects.native import problems
from kvasir.dialects.native.app import NativeDialect
from kvasir.dialects.nemesis import statuses
from kvasir.dialects.versori import responses
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.dialects.voximplant import errors as voximplant
from kvasir.errors import Invalid, KvasirError
from kvasir.testbed.faults import Faults, Rule
from kvasir.testing import Server
from kvasir.testing.controls import ControlFailed
from tests.support.testbed import KINDS, Disconnected, Failed, opened

ROWS = [kind for kind in KvasirError.__subclasses__() if kind.__module__ == errors.__name__]


def told(api: str, kind: type[KvasirError]) -> int:
    """What docs/errors.md says that an API tells this failure by."""
    if api == "nemesis":
        return int(statuses.OF_ERROR[kind])
    if api == "voximplant":
        return voximplant.FAILURES[kind].code
    return (responses.FAILURES if api == "versori" else problems.FAILURES)[kind].status


@pytest.mark.parametrize("api", KINDS)
def test_every_row_of_the_errors_is_told_in_the_form_of_the_api(kvasir_server: Server, api: str) -> None:
    with opened(kvasir_server, api) as door:
        door.set("before")
        for kind in ROWS:
            door.space.faults.add(
                kind.code,
                api=api,
                operation=door.set_operation,
                times=1,
                happens=(False if kind is errors.UnknownOutcome else None),
            )
            if (api, kind) == ("nemesis", errors.NotFound):
                assert door.ask("KV_SET", tkn=door.token, keys={"k": 1})["st"] == told(api, kind)
                continue
            with pytest.raises(Failed) as failed:
                door.set("lost")
            assert failed.value.code == told(api, kind), kind
        assert door.get() == "before", "a failure that was ordered must change nothing"


@pytest.mark.parametrize("api", KINDS)
def test_only_reading_tells_a_lost_request_from_a_lost_answer(kvasir_server: Server, api: str) -> None:
    with opened(kvasir_server, api) as door:
        door.set("first")
        for fault, then in (("drop", "first"), ("commit_then_drop", "second")):
            door.space.faults.add(fault, operation=door.set_operation, times=1)
            with pytest.raises(Disconnected):
                door.set("second")
            assert door.get() == then


@pytest.mark.parametrize("api", KINDS)
@pytest.mark.parametrize("happens", [True, False])
def test_an_unknown_outcome_is_unknown(kvasir_server: Server, api: str, happens: bool) -> None:
    with opened(kvasir_server, api) as door:
        door.space.faults.add("unknown_outcome", operation=door.set_operation, times=1, happens=happens)
        with pytest.raises(Failed) as failed:
            door.set("v")
        assert failed.value.code == told(api, errors.UnknownOutcome)
        assert door.get() == ("v" if happens else None)


@pytest.mark.parametrize(("api", "code"), [("versori", 429), ("native", 429), ("voximplant", 340), ("nemesis", 1000)])
def test_a_rate_limit_is_the_services_own(kvasir_server: Server, api: str, code: int) -> None:
    with opened(kvasir_server, api) as door:
        door.space.faults.add("rate_limited", times=1)
        with pytest.raises(Failed) as failed:
            door.set("v")
        assert failed.value.code == code
        door.set("v")


def test_account_errors_of_voximplant_and_close_codes_of_websockets(kvasir_server: Server) -> None:
    with opened(kvasir_server, "voximplant") as door:
        door.space.faults.add("error", api="voximplant", code=131, times=1)
        with pytest.raises(Failed) as failed:
            door.get()
        assert failed.value.code == 131
    with opened(kvasir_server, "nemesis") as door:
        door.set("v")
        door.space.faults.add("close", api="nemesis", code=1013, times=1)
        with pytest.raises(Failed) as failed:
            door.get()
        assert failed.value.code == 1013
        assert door.get() == "v", "a new connection serves"


def test_a_rule_strikes_what_it_names_as_often_as_it_says(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door, opened(kvasir_server, "versori") as other:
        door.space.faults.add("unavailable", operation="SetKV", key=["k"], times=2)
        door.space.faults.add("internal", operation="SetKV", key="another key")
        other.set(1)
        for _ in range(2):
            with pytest.raises(Failed):
                door.set(1)
            assert door.get() is None
        door.set(1)
        assert door.get() == 1


def test_the_same_seed_strikes_the_same_requests(kvasir_server: Server) -> None:
    def struck() -> list[bool]:
        with opened(kvasir_server, "versori") as door:
            door.space.faults.add("unavailable", probability=0.5, seed=7)
            found = []
            for n in range(40):
                try:
                    door.set(n)
                    found.append(False)
                except Failed:
                    found.append(True)
            return found

    first = struck()
    assert first == struck()
    assert 5 < sum(first) < 35


def test_a_delay_answers_as_ever_but_later(kvasir_server: Server) -> None:
    with opened(kvasir_server, "nemesis") as door:
        door.space.faults.add("delay", delay_ms=50, times=1)
        door.set("v")
        assert door.get() == "v"
        first, second = door.space.requests()
        assert first["milliseconds"] > 45
        assert (first["fault"], second["fault"]) == (True, False)


def test_a_rule_names_any_operation_of_what_is_served_and_a_space_in_any_case(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        for operations in (VersoriDialect.operations, NativeDialect.operations, VoximplantDialect.operations):
            for operation in operations:
                door.space.faults.add("delay", operation=operation)
        door.space.faults.clear()
        door.space.faults.add("unavailable", space=door.space.id.lower(), operation="SetKV")
        with pytest.raises(Failed):
            door.set(1)


def test_an_operation_of_an_api_that_is_not_served_says_so() -> None:
    faults = Faults({"versori": ("SetKV",)})
    with pytest.raises(
        Invalid, match="operation is of nemesis, which is not served: start `kvasir dev` with --nemesis"
    ):
        faults.add([Rule(outcome="drop", api="nemesis", operation="KV_SET")])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"outcome": "broken"}, "outcome must be one of"),
        ({"outcome": "error", "api": "voximplant"}, "code"),
        ({"outcome": "close", "code": 1013}, 'must be "nemesis"'),
        ({"outcome": "error", "code": 131}, 'must be "voximplant"'),
        ({"outcome": "unavailable", "happens": True}, "happens"),
        ({"outcome": "drop", "times": 0}, "times"),
        ({"outcome": "drop", "probability": 2}, "probability"),
        ({"outcome": "delay", "delay_ms": -1}, "delay_ms"),
        ({"outcome": "drop", "operatoin": "SetKV"}, "operatoin"),
        ({"outcome": "drop", "operation": "SetKv"}, r"operation must be one .* such as SetKV"),
        ({"outcome": "drop", "api": "native", "operation": "SetKV"}, r"operation must be one of: .*SetEntry"),
        ({"outcome": "drop", "api": "nemesis", "operation": "KV_GTE"}, r"operation must be one of: .*KV_GET"),
        ({"outcome": "drop", "space": "01JZ"}, "fault 1: space must be a ULID"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(kvasir_server: Server, rule: dict[str, Any], words: str) -> None:
    with opened(kvasir_server, "versori") as door:
        with pytest.raises(ControlFailed, match=words):
            door.space.faults.add(**rule)
        door.set(1)
