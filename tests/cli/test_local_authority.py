"""The authority for development: what it may vouch for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from kvasir.cli import local_authority


def test_its_constraints_are_on_names_alone(tmp_path: Path) -> None:
    """Mono refuses every certificate below an authority with constraints on addresses."""
    authority, certificate, _ = local_authority.write(tmp_path, datetime.now(UTC))
    extensions = x509.load_pem_x509_certificate(authority.read_bytes()).extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints).value
    assert constraints.excluded_subtrees is None
    assert constraints.permitted_subtrees
    assert all(isinstance(each, x509.DNSName) for each in constraints.permitted_subtrees)
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    assert names.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.IPAddress)
