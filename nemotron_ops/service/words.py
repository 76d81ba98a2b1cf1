"""Quotes command lines and addresses as systemd reads them. Pure."""

from __future__ import annotations

import ipaddress

from nemotron_ops.errors import UsageError


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{'127.0.0.1' if host == 'localhost' else host}:{port}"


def check_address(host: str) -> None:
    """Raise UsageError if `host` is not an address: systemd refuses a name in a socket unit."""
    if host == "localhost":
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(
            f"cannot listen on {host!r} as a service: systemd opens the socket, and takes addresses, not names",
            hint="give the address that the name stands for (`getent ahosts NAME`), or 0.0.0.0 for all of them",
        ) from None


def check_networks(networks: tuple[str, ...]) -> None:
    """Raise UsageError for an invalid network: systemd would only warn, and leave it out of the list."""
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise UsageError(
                f"cannot allow {network!r}: not a network or address",
                hint="such as 10.0.0.0/8, 192.168.1.7 or fd00::/8",
            ) from None


def command(argv: tuple[str, ...]) -> str:
    """`argv` as the value of ExecStart=."""
    return " ".join(word(w) for w in argv)


def check_printable(text: str) -> None:
    """Raise UsageError for control characters: a line break would begin a directive of its own in a unit file."""
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        raise UsageError(f"cannot use {text!a}: it has a control character")


def word(text: str) -> str:
    """One word of a command line, quoted by systemd.syntax(7); only `${CREDENTIALS_DIRECTORY}` is left to systemd.

    Raises UsageError for control characters.
    """
    check_printable(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if not escaped.startswith("${CREDENTIALS_DIRECTORY}"):
        escaped = escaped.replace("$", "$$")
    plain = escaped and all(c.isalnum() or c in "-_=./:,@+%${}" for c in escaped)
    return escaped if plain else f'"{escaped}"'
