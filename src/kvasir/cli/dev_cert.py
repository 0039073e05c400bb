"""`kvasir dev-cert`: TLS for this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def dev_cert(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where ca.pem, cert.pem and key.pem go; made if missing.")
    ],
) -> None:
    """Make a local certificate authority and a certificate for localhost, 127.0.0.1 and ::1."""
    from kvasir import devcert

    ca, cert, key = devcert.write(directory, datetime.now(UTC))
    typer.echo(f"kvasir serve --https 127.0.0.1:8902 --tls-cert {cert} --tls-key {key}")
    typer.echo(f"clients must trust {ca}, for {devcert.DAYS - devcert.BACKDATED.days} days", err=True)
