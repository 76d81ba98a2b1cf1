"""Addresses that a server listens on: loopback, wildcard, and how a client on this machine reaches them. Pure.

Promise 4 (nothing listens beyond loopback without a key) rests on `is_loopback`: it has one definition, here.
"""

from __future__ import annotations

from ipaddress import ip_address

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = frozenset({"localhost", LOOPBACK, "[::1]", "::1"})  # what a Host header may say of loopback
WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}  # listens on all addresses -> loopback of its family


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost is not trusted to stay on it."""
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
    """The address at which a client on this machine reaches what listens on `host`."""
    return WILDCARDS.get(host, host)


def bracketed(host: str) -> str:
    """The host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def url(scheme: str, host: str, port: int) -> str:
    """The base URL that clients take, ending in /v1."""
    return f"{scheme}://{bracketed(host)}:{port}/v1"
