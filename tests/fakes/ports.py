"""Ports for servers that another process starts. Sockets, lock files."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

FIRST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
CLAIMS = Path(tempfile.gettempdir()) / f"nemotron-ops-test-ports-{os.getuid()}"


def free_port() -> int:
    """A port that no server listens on and no other test process has claimed, below the kernel's ports for clients.

    A port of the kernel's choice could be taken by a client before the server binds it, even by a client of this very
    server: on loopback, a connection to such a port can meet itself.
    """
    end = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(FIRST, end)
        if _is_free(port) and _claim(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Lock the port's file until this process ends; false if another process has it locked."""
    CLAIMS.mkdir(exist_ok=True)
    fd = os.open(CLAIMS / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    return True
