"""`python -m nemotron_ops.gateway`: runs the gateway as a process of its own. argv, sockets, signals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvloop

from nemotron_ops.addresses import is_loopback
from nemotron_ops.errors import GatewayError, NemotronOpsError, UsageError
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.keys.hot_reload import first_ring, first_tls
from nemotron_ops.gateway.options import FLAGS, Options, from_mapping
from nemotron_ops.gateway.server import Gateway

BACKLOG = 1024
GC_OBJECTS = 20_000
HANDSHAKE_S = 10.0  # for a client's TLS handshake; it has no request yet that could time out
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, times


def parser() -> argparse.ArgumentParser:
    """The command line: one flag for each field of Options."""
    found = argparse.ArgumentParser(prog="python -m nemotron_ops.gateway", description=__doc__, allow_abbrev=False)
    found.add_argument("--options", metavar="FILE", help="JSON object with any of these options by field name")
    for item in fields(Options):
        flag, about = "--" + item.name.replace("_", "-"), FLAGS[item.name]
        if isinstance(item.default, bool):
            found.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
        elif isinstance(item.default, tuple):
            kind = int if item.name == "listen_fd" else str
            found.add_argument(flag, action="append", type=kind, default=None, help=about)
        else:
            found.add_argument(flag, type=type(item.default), default=None, help=about)
    return found


def read_options(argv: list[str]) -> Options:
    """Options from a file, overridden by flags. Raises UsageError."""
    given: dict[str, Any] = {k: v for k, v in vars(parser().parse_args(argv)).items() if v is not None}
    path = given.pop("options", None)
    base: dict[str, Any] = {}
    if path:
        try:
            base = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as exc:
            raise UsageError(f"cannot read {path}: {exc}") from exc
    return from_mapping({**base, **given})


def open_sockets(options: Options) -> list[socket.socket]:
    """The listening sockets, inherited or created. Raises GatewayError."""
    found = [socket.socket(fileno=fd) for fd in options.listen_fd]
    for text in options.listen:
        host, _, port = text.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            found.append(socket.create_server((host, int(port)), family=family, backlog=BACKLOG))
        except (OSError, ValueError) as exc:
            raise GatewayError(f"cannot listen on {text}: {exc}", hint="choose another port") from exc
    if not found:
        raise GatewayError("cannot serve: no --listen-fd and no --listen given")
    return found


def check_exposure(sockets: list[socket.socket], *, has_keys: bool) -> None:
    """Raises GatewayError if a socket is reachable from other machines and no key is required."""
    for sock in sockets:
        if sock.family == socket.AF_UNIX or has_keys:
            continue
        address = str(sock.getsockname()[0]).partition("%")[0]
        if not is_loopback(address):
            raise GatewayError(
                f"cannot serve on {address}: it can be reached from elsewhere and no keys are configured",
                hint="make a key with `nemotron-ops keys create`, or listen on 127.0.0.1",
            )


def detect_dead_clients(sock: socket.socket, stall_s: float) -> None:
    """Let the kernel close connections of clients that vanished. Accepted sockets inherit the options of `sock`."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**KEEPALIVE, "TCP_USER_TIMEOUT": round(stall_s * 1000)}.items():
        if (option := getattr(socket, name, None)) is not None:  # missing on some systems
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT."""
    raise_descriptor_limit()
    ring = first_ring(options)
    sockets = open_sockets(options)
    check_exposure(sockets, has_keys=ring is not None)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(options, ring=ring, tls=first_tls(options))
    loop.add_signal_handler(signal.SIGHUP, gateway.accounting.log.reopen)
    servers = []
    for sock in sockets:
        sock.setblocking(False)
        detect_dead_clients(sock, options.write_stall_s)
        server = await loop.create_server(
            lambda: ClientConnection(gateway, loop),
            sock=sock,
            ssl=gateway.watch.tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if gateway.watch.tls is None else HANDSHAKE_S,
        )
        servers.append(server)
        if options.listen:
            name = sock.getsockname()
            sys.stdout.write(f"listening on {name[0]}:{name[1]}\n")
            sys.stdout.flush()
    tune_garbage_collector()
    await gateway.run(servers, stop)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is drained and written; closing uvloop's loop would wait for open sockets


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system grants: a login shell's 1,024 are used up before `max_connections`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses an unlimited value
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_garbage_collector() -> None:
    """Collect cycles rarely: Python's default takes an eighth of the CPU, and requests leave almost no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 10, 10)


def main() -> None:
    """Run the gateway; errors become a message on stderr and an exit code."""
    try:
        uvloop.run(serve(read_options(sys.argv[1:])))
    except NemotronOpsError as exc:
        sys.stderr.write(f"error: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
