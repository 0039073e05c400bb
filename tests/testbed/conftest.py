"""The plugin is tested with its own fixtures."""

from __future__ import annotations

from kvasir.testing import (
    kvasir,
    kvasir_nemesis,
    kvasir_options,
    kvasir_server,
    kvasir_versori,
    kvasir_voximplant,
)

__all__ = ["kvasir", "kvasir_nemesis", "kvasir_options", "kvasir_server", "kvasir_versori", "kvasir_voximplant"]
