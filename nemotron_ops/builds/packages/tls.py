"""TLS contexts that trust the system's certificates, pip's, and pip's trusted hosts. Disk.

certifi's list alone fails with a registry mirror that has its own certificate, and Pythons built elsewhere look for the
system's store in a missing folder. So the usual paths are tried by name.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlsplit

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine
)
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def context(
    env: Mapping[str, str], *, cert: str = "", client_cert: str = "", trusted_hosts: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """A verifying context. `cert` is a file or folder of certificates to trust besides the system's.

    `trusted_hosts` are pip's, `HOST` or `HOST:PORT`: only their certificates are not verified.
    """
    made = _trusting(trusted_hosts) if trusted_hosts else ssl.create_default_context()
    for place in (cert, *(env.get(name, "") for name in VARIABLES), *SYSTEM_BUNDLES):
        _trust(made, place)
    if not made.get_ca_certs():
        import certifi

        made.load_verify_locations(cafile=certifi.where())
    if client_cert:
        made.load_cert_chain(client_cert)
    return made


class _Context(ssl.SSLContext):
    """Verifies every host except `trusted`. A transport per host would not work behind a proxy."""

    trusted: frozenset[str] = frozenset()

    def wrap_socket(self, sock: socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        if options.get("server_hostname") not in self.trusted:
            return super().wrap_socket(sock, *args, **options)
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
        return blind.wrap_socket(sock, *args, **options)


def _trusting(hosts: tuple[str, ...]) -> ssl.SSLContext:
    made = _Context(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    made.load_default_certs()
    made.trusted = frozenset(urlsplit(f"//{host}").hostname or "" for host in hosts)
    return made


def _trust(made: ssl.SSLContext, place: str) -> None:
    path = Path(place)
    try:
        if place and path.is_file():
            made.load_verify_locations(cafile=place)
        elif place and path.is_dir():
            made.load_verify_locations(capath=place)
    except (ssl.SSLError, OSError):
        return  # an unreadable bundle adds nothing; a missing certificate shows as a refused connection
