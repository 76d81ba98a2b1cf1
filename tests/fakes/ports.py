"""Ports for servers that another process starts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to clients.

    One of the kernel's choice may be some client's by the time the server binds it; also that of a client who waits
    for this server: on loopback, a connection to such a port can meet itself.
    """
    end = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(FIRST, end)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
