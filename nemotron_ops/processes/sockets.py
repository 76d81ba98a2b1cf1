"""Listening sockets that outlive a process: opened, passed by the service manager, copied from a process. Sockets."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from nemotron_ops.errors import GatewayError

BACKLOG = 1024
PIDFD_GETFD = 438  # the same number on every Linux architecture


@dataclass(frozen=True, kw_only=True)
class Address:
    host: str
    port: int


def listen(at: Address) -> socket.socket:
    """A listening socket at `at`. Raises GatewayError if the address is not available."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((at.host, at.port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        hint = f"another program uses port {at.port}; choose another one with --port" if at.port else None
        raise GatewayError(f"cannot listen on {at.host}:{at.port}: {exc.strerror or exc}", hint=hint) from exc
    sock.setblocking(False)
    return sock


def was_passed(env: Mapping[str, str], pid: int) -> bool:
    """Whether the service manager opened the listening socket of process `pid` (LISTEN_FDS) and may keep it."""
    count = env.get("LISTEN_FDS", "")
    return env.get("LISTEN_PID") == str(pid) and count.isdigit() and int(count) > 0


def passed_socket(env: Mapping[str, str], pid: int) -> socket.socket | None:
    """The socket that the service manager passed to process `pid` (LISTEN_FDS), if any."""
    if not was_passed(env, pid):
        return None
    sock = socket.socket(fileno=3)
    sock.setblocking(False)
    return sock


def copy_socket(pid: int, fd: int) -> socket.socket | None:
    """A copy of descriptor `fd` of process `pid`, if the kernel allows it and it is a listening socket."""
    if fd < 0 or not sys.platform.startswith("linux"):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = int(ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0))
    finally:
        os.close(pidfd)
    if copy < 0:
        return None
    try:
        sock = socket.socket(fileno=copy)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            return None
    except OSError:
        os.close(copy)
        return None
    sock.setblocking(False)
    return sock
