"""What an operator may choose: the limits, and an answer to every question that the documentation leaves open."""

from __future__ import annotations

import dataclasses

from kvasir.limits import VoximplantLimits


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings(VoximplantLimits):
    """The limits and the choices. The rows of `kvasir.config.table` have the defaults of the choices."""

    #: Code of the error for a key that does not exist; no published code means just that.
    missing_key_code: int
    #: Code of the error for an `application_id` that does not exist; 558 is the other candidate.
    unknown_application_code: int
    #: Code of the error for a token whose `kid` is unknown; 100 does not reveal to strangers which key ids exist.
    unknown_key_id_code: int
    #: "prefix": the pattern `test` matches "testing:1"; "namespace": only "test" and keys like "test:1"
    pattern: str
    ttl_default_seconds: int
    page_default: int
