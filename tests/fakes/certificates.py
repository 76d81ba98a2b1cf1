"""Self-signed certificates for tests of TLS. Runs openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fakes.programs import need


def self_signed(certificate: Path, key: Path, *, organisation: str = "tests") -> None:
    """A certificate for localhost and 127.0.0.1, and its private key; existing files are overwritten."""
    need("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN=localhost/O={organisation}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
