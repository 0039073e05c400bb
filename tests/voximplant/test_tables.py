"""The tables are complete: every failure has an answer, every setting a row, every outcome a metric."""

from __future__ import annotations

import dataclasses

import pytest

from kvasir import errors as failures
from kvasir.access.service_tokens import Flaw
from kvasir.config.loading import load
from kvasir.config.table import SETTINGS, VOXIMPLANT
from kvasir.dialects.voximplant import VoximplantDialect, errors
from kvasir.dialects.voximplant.methods import COMMANDS
from kvasir.metrics import OUTCOMES
from kvasir.server.worker import voximplant_settings
from tests.support.voximplant import settings_with

#: Number -> text, as published at https://voximplant.com/docs/references/httpapi/errors (with a period, as sent).
PUBLISHED = {
    2: "Internal error.",
    4: "DB error.",
    100: "Authorization failed.",
    101: "Invalid arguments.",
    102: "Missing 'cmd' parameter.",
    103: "Unknown command.",
    104: "Forbidden command.",
    105: "The required output format type is not supported.",
    107: "Invalid application name.",
    115: "The 'account_id' parameter is invalid.",
    116: "The 'application_id' parameter is invalid.",
    134: "Required parameter is empty.",
    162: "try later..",
    433: "Invalid key id.",
    447: "Invalid token format.",
    454: "The token TTL exceeds the maximum limit.",
    455: "Token issued in the future.",
    456: "The token has expired.",
    458: "Specify only one of the following parameters: {0}.",
    477: "The '{0}' parameter length must not exceed {1} symbols.",
    493: "The '{0}' is not unique.",
    496: "The '{0}' parameter is invalid.",
    497: "{0} should be in range of {1}..{2}.",
    558: "Application is not found.",
}

ALL = [value for value in vars(errors).values() if isinstance(value, errors.Failure)]


def test_codes_and_texts_are_the_published_ones() -> None:
    assert {failure.code: failure.text for failure in ALL} == PUBLISHED


#: Those of `kvasir.errors`; a command of the command line may have its own.
BELOW = [kind for kind in failures.KvasirError.__subclasses__() if kind.__module__ == failures.__name__]


def test_every_failure_below_has_an_answer() -> None:
    assert set(errors.FAILURES) == set(BELOW)


@pytest.mark.parametrize("kind", BELOW)
def test_failures_below_are_answered_in_this_form(kind: type[failures.KvasirError]) -> None:
    error = errors.of(kind("what to do"))
    assert error.members["code"] == errors.FAILURES[kind].code
    assert error.failure.outcome == kind.code
    assert error.members["msg"].endswith(": what to do.")


def test_an_unknown_failure_is_internal() -> None:
    assert errors.of(failures.KvasirError("secret")).members == {"msg": "Internal error.", "code": 2}


def test_every_flaw_of_a_token_has_a_code() -> None:
    assert set(errors.FLAWS) == set(Flaw)


def test_every_outcome_has_a_metric() -> None:
    assert {failure.outcome for failure in [*ALL, *errors.FAILURES.values()]} <= set(OUTCOMES)
    assert set(COMMANDS) < set(VoximplantDialect.operations)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = dataclasses.asdict(settings_with())
    assert (
        settings
        | {
            "key_characters": 200,
            "value_characters": 2_000,
            "ttl_default_seconds": 30 * 86_400,
            "ttl_maximum_seconds": 90 * 86_400,
            "page_default": 10,
            "page_maximum": 50,
        }
        == settings
    )


def test_every_setting_comes_from_its_row() -> None:
    rows = [setting for setting in SETTINGS if setting.group == VOXIMPLANT]
    assert {row.name for row in rows} == {f"voximplant_{name}" for name in dataclasses.asdict(settings_with())}
    chosen = {row.name: str(row.parse(row.default or "") + 1) for row in rows if row.name != "voximplant_pattern"}
    changed = voximplant_settings(load(chosen | {"voximplant_pattern": "namespace"}, {}))
    assert {f"voximplant_{name}": str(value) for name, value in dataclasses.asdict(changed).items()} == chosen | {
        "voximplant_pattern": "namespace"
    }
