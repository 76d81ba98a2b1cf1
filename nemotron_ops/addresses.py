"""Addresses of servers: loopback, wildcard, and the URLs that clients use. Pure.

Promise 4 (nothing listens beyond loopback without a key) depends on `is_loopback`, so it is defined once, here.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = frozenset({"localhost", LOOPBACK, "[::1]", "::1"})  # loopback in a Host header
WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}  # wildcard -> loopback of the same family


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Names other than localhost do not count."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    return host in WILDCARDS


def near(host: str) -> str:
    """The address at which a client on this machine reaches a server that listens on `host`."""
    return WILDCARDS.get(host, host)


def bracketed(host: str) -> str:
    """The host as part of a URL: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def url(scheme: str, host: str, port: int) -> str:
    """The base URL for clients, ending in /v1."""
    return f"{scheme}://{bracketed(host)}:{port}/v1"


def readable_no_proxy(text: str) -> str:
    """`NO_PROXY` as httpx can read it; one entry that it cannot makes all its clients fail.

    IPv6 addresses lose brackets and port; IPv6 networks, which it does not know, are left out.
    """
    entries = (entry.strip() for entry in text.split(","))
    return ",".join(filter(None, (_readable(entry) for entry in entries)))


def _readable(entry: str) -> str:
    bracketed = entry.startswith("[")
    bare, _, rest = entry[1:].partition("]") if bracketed else (entry, "", "")
    address, _, bits = bare.partition("/")
    if not bracketed and (":" not in address or "://" in entry):
        return entry
    try:
        IPv6Address(address.partition("%")[0])
    except ValueError:
        return "" if bracketed else entry
    return address if (bits or rest.partition("/")[2]) in ("", "128") else ""
