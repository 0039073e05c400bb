"""`kvasir dev-cert`: TLS for local development."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def dev_cert(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write ca.pem, cert.pem and key.pem; created if missing.")
    ],
) -> None:
    """Create a local certificate authority and a certificate for localhost, 127.0.0.1 and ::1."""
    from kvasir.cli import local_authority

    ca, cert, key = local_authority.write(directory, datetime.now(UTC))
    typer.echo(f"kvasir serve --https 127.0.0.1:8902 --tls-cert {cert} --tls-key {key}")
    typer.echo(f"clients must trust {ca}, for {local_authority.DAYS - local_authority.BACKDATED.days} days", err=True)
