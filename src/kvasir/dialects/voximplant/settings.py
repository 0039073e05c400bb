"""What an operator may choose: the documented limits, and one row for every question the documentation leaves open."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """The defaults are Voximplant's own wherever its documentation names one."""

    #: Code of the answer for a key that is not there; no published code means just that.
    missing_key_code: int = 496
    #: Code of the answer for an `application_id` that is not there; 558 is the other candidate.
    unknown_application_code: int = 116
    #: Code of the answer for a token whose `kid` is unknown; 100 tells a stranger nothing about key ids.
    unknown_key_id_code: int = 433
    #: Whether the pattern `test` finds "testing:1" (prefix) or only "test" and "test:1" (namespace).
    pattern: Literal["prefix", "namespace"] = "prefix"
    key_characters: int = 200
    value_characters: int = 2_000
    ttl_default_seconds: int = 2_592_000
    ttl_maximum_seconds: int = 7_776_000
    page_default: int = 10
    page_maximum: int = 50
    #: Longest urlencoded or multipart body. A legal one is below 32 KiB: 2,000 characters of 4 bytes, percent-encoded.
    form_bytes: int = 65_536
    #: Longest JSON body; only the bulk commands need more than a form.
    json_bytes: int = 262_144
