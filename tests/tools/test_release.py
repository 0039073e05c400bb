"""What is not ready to be released is refused."""

from __future__ import annotations

import pytest

from tools.release import faults

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-11-28\n\n### Added\n"


def test_what_is_ready_has_no_faults() -> None:
    assert faults("1.2.0", "1.2.0", ["latest", "v1.2.0"], "", CHANGELOG) == []


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (("1.2.0", "1.1.0", ["v1.2.0"], "", CHANGELOG), "both are released together"),
        (("1.2.0", "1.2.0", ["v1.2.1"], "", CHANGELOG), "HEAD has no tag v1.2.0"),
        (("1.2.0", "1.2.0", ["v1.2.0"], " M README.md", CHANGELOG), "not committed"),
        (("1.3.0", "1.3.0", ["v1.3.0"], "", CHANGELOG), "no section [1.3.0] with a date"),
    ],
)
def test_one_thing_missing_is_one_fault(given: tuple[str, str, list[str], str, str], fault: str) -> None:
    (found,) = faults(*given)
    assert fault in found
