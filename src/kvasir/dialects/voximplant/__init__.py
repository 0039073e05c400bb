"""The key-value storage of the Voximplant Management API."""

from __future__ import annotations

from kvasir.dialects.voximplant.app import VoximplantDialect
from kvasir.dialects.voximplant.settings import Settings

__all__ = ["Settings", "VoximplantDialect"]
