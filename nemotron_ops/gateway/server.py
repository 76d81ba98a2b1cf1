"""The gateway: what all clients share, from the first connection to the drain. asyncio.

Each request is an `Exchange` in a task of its own; nothing here waits for anything but the end.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
import traceback

from nemotron_ops import __version__
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.gateway import headers as heads
from nemotron_ops.gateway import keystore, local, routes
from nemotron_ops.gateway.books import Books
from nemotron_ops.gateway.exchange import Exchange
from nemotron_ops.gateway.headers import Request
from nemotron_ops.gateway.http import ClientConnection
from nemotron_ops.gateway.keys import KeyRing, admit
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.pool import Pool
from nemotron_ops.gateway.reader import Limits
from nemotron_ops.gateway.relay import Memory
from nemotron_ops.gateway.replies import Refusal
from nemotron_ops.gateway.routes import Api, Kind, Route, Scope

SWEEP_S = 1.0
DRAIN_POLL_S = 0.02
CUT_S = 1.0  # for the last words of what was cut to go out
LARGE_BYTES = 1 << 20
ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
UNKNOWN = Route(method="", path="", kind=Kind.LOCAL, scope=Scope.PUBLIC, api=Api.OTHER, upstream="", about="")


class Gateway:
    """One running gateway."""

    def __init__(self, options: Options, *, ring: KeyRing | None, tls: ssl.SSLContext | None = None) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.ring = ring
        self.tls = tls
        self.limits = Limits(body_bytes=options.max_body_mib << 20)
        self.books = Books(options)
        self.pool = Pool(options, self.books.metrics)
        self.memory = Memory()
        self.steerable: set[Exchange] = set()  # streams that take a word while they run
        self.hosts = heads.LOOPBACK_HOSTS | frozenset(h.lower() for h in options.allowed_host)
        self.origins = frozenset(o.lower() for o in options.allowed_origin)
        self.clients: set[ClientConnection] = set()
        self.running: set[asyncio.Task[None]] = set()
        self._large = False  # a large body was here since memory was given back
        self._stamps = {path: keystore.stamp(path) for path in self._watched()}

    # clients

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.clients.add(connection)
        if len(self.clients) > self.options.max_connections:
            connection.close_when_idle()
        elif self.pool.stopping:
            connection.retire()  # accepted just before the door was closed

    def closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""
        self.clients.discard(connection)

    def refused(self, connection: ClientConnection, refusal: Refusal) -> None:
        """A connection brought something that is no request."""
        self.books.metrics.errors[("", refusal.code)] += 1
        self.books.metrics.requests[("", "", str(refusal.status))] += 1

    def asked(self, connection: ClientConnection, request: Request) -> None:
        """A whole request has come."""
        route = self._route(request.method, request.path)
        exchange = Exchange(self, connection, request, route or UNKNOWN, request_id(request))
        try:
            if request.method == "OPTIONS":
                extra = heads.preflight_headers(request.headers, self.origins)
                exchange.status = 204
                connection.reply(204, b"", content_type=b"", extra=extra)
            elif route is None:
                raise self._no_route(request)
            else:
                self._authorise(exchange, route)
                if route.kind is not Kind.LOCAL or (route.scope is Scope.INFERENCE and not self.pool.known):
                    self._start(exchange)  # a list of models waits for the first snapshot rather than be empty
                    return
                self.answer(exchange)
        except Refusal as refusal:
            exchange.refuse(refusal)
        self.books.finished(exchange, now=self.loop.time())

    def _authorise(self, exchange: Exchange, route: Route) -> None:
        headers = exchange.request.headers
        heads.check_host(headers, self._hosts())
        heads.check_origin(headers, self.origins)
        exchange.key = admit(self.ring, heads.client_key(headers), route.scope, now=time.time())
        if route.kind in (Kind.GENERATE, Kind.POOL, Kind.LIGHT, Kind.UPLOAD):
            self.books.quotas.enter(exchange.key, now=self.loop.time(), wall=time.time())
            exchange.entered = True

    def answer(self, exchange: Exchange) -> None:
        """Answer what no llama-server is needed for. Raises Refusal."""
        status, kind, body = local.answer(
            exchange.route, exchange.request, exchange.key, self.pool.directory, metrics=self._metrics
        )  # fmt: skip
        exchange.status = status
        exchange.client.reply(status, body, content_type=kind, extra=self.cors(exchange.request))

    def _start(self, exchange: Exchange) -> None:
        task = self.loop.create_task(exchange.run())
        self.running.add(task)
        task.add_done_callback(lambda done: self._ran(done, exchange))
        exchange.client.on_gone = lambda: void(task.cancel())

    def _ran(self, task: asyncio.Task[None], exchange: Exchange) -> None:
        """A request is over; also one whose client left before its task had begun to run."""
        self.running.discard(task)
        self.books.finished(exchange, now=self.loop.time())
        self._large |= len(exchange.request.body) > LARGE_BYTES
        exchange.request.body = b""  # also where something still holds the exchange for a while
        if exchange.relay is not None:
            self._large |= exchange.relay.kept_bytes > LARGE_BYTES // 16
            exchange.relay.forget()
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.log_bug(exc)

    def _route(self, method: str, path: str) -> Route | None:
        route = routes.find(method, path)
        return None if route is not None and route.native and not self.options.native else route

    def _no_route(self, request: Request) -> Refusal:
        allowed = routes.methods(request.path)
        if allowed and request.method not in allowed:
            allow = ", ".join(allowed)
            message = f"{request.path[:200]} takes {allow}, not {request.method}"
            return Refusal(status=405, code="method_not_allowed", message=message, allow=allow)
        return Refusal(status=404, code="not_found", message=f"there is no {request.method} {request.path[:200]}")

    def _hosts(self) -> frozenset[str] | None:
        """Names under which we may be addressed; any (None) where clients have to show a key anyway."""
        return None if self.ring is not None and not self.options.allowed_host else self.hosts

    def cors(self, request: Request) -> list[tuple[bytes, bytes]]:
        """Headers that let an allowed web page read the answer."""
        return heads.cors_headers(request.headers, self.origins) if self.origins else []

    def _metrics(self) -> bytes:
        from nemotron_ops.gateway.exposition import Picture, render

        picture = Picture(
            metrics=self.books.metrics, snapshot=self.pool.snapshot, queue_length=self.pool.queue_lengths(),
            inflight=self.pool.inflight(), reserved_tokens=self.pool.reserved_tokens(),
            connections=len(self.clients), connected=self.pool.follower.connected, version=__version__,
        )  # fmt: skip
        return render(picture)

    def log_bug(self, exc: BaseException) -> None:
        """Something that must not happen happened: say where, without any request's content."""
        frames = "".join(traceback.format_tb(exc.__traceback__))
        sys.stderr.write(f"bug in the gateway: Traceback:\n{frames}{type(exc).__name__}\n")
        sys.stderr.flush()

    # life

    async def run(self, servers: list[asyncio.Server], stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.pool.follower.run()), group.create_task(self._sweep())]
            await stop.wait()
            await self._drain(servers)
            for task in tasks:
                task.cancel()
        self.books.flush_log()
        self.books.save(self.loop.time())
        if self.books.tracing is not None:
            await asyncio.to_thread(self.books.tracing.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            for connection in list(self.clients):
                connection.check_deadline(now)
            self.books.tick(now)
            if self._large and not self.running:
                self._large = False
                give_memory_back()
            for path in self._watched():
                stamp = keystore.stamp(path)
                if stamp is not None and stamp != self._stamps.get(path):
                    self._stamps[path] = stamp
                    self._reload(path)

    def _watched(self) -> tuple[str, ...]:
        return tuple(p for p in (self.options.api_keys_file, self.options.tls_cert) if p)

    def _reload(self, path: str) -> None:
        """Take over a changed keys file or certificate; a bad one is reported and the old one kept."""
        from pathlib import Path

        try:
            if path == self.options.api_keys_file:
                self.ring = keystore.read_ring(Path(path))
            elif self.tls is not None:
                self.tls.load_cert_chain(self.options.tls_cert, self.options.tls_key or None)
        except (NemotronOpsError, OSError) as exc:
            sys.stderr.write(f"warning: {path} has changed but cannot be used, keeping the old one: {exc}\n")
            sys.stderr.flush()

    async def _drain(self, servers: list[asyncio.Server]) -> None:
        """Accept nothing new, answer what was accepted, then cut what is left.

        New clients wait in the listening socket's backlog, which belongs to whoever else holds the socket.
        """
        self.pool.stopping = True
        for server in servers:
            server.close()
        for connection in list(self.clients):
            connection.retire()
        await self._until_all_left(self.options.drain_s)
        for task in list(self.running):
            task.cancel()
        await self._until_all_left(CUT_S)
        for connection in list(self.clients):
            if connection.transport is not None:
                connection.transport.abort()
        self.pool.close()
        await asyncio.sleep(0.01)  # lets the loop close what was aborted: uvloop waits for ever for what is not

    async def _until_all_left(self, within_s: float) -> None:
        """Wait until no client is connected and nothing runs, closing who has gone silent."""
        end = self.loop.time() + within_s
        while self.loop.time() < end:
            await asyncio.sleep(DRAIN_POLL_S)  # first, so that connections just accepted are in `clients`
            if not self.clients and not self.running:
                return
            for connection in list(self.clients):
                connection.check_deadline(self.loop.time())


def request_id(request: Request) -> str:
    """The client's own request id if it is harmless, else a new one."""
    given = request.headers.get(b"x-request-id", b"").decode("latin-1")
    if given and len(given) <= 128 and ID_LETTERS.issuperset(given):
        return given
    return "req-" + os.urandom(12).hex()


def give_memory_back() -> None:
    """Return freed memory to the system: glibc keeps what large bodies took, megabytes per connection.

    Called while nothing runs, so that no stream waits for it.
    """
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def void(_: object) -> None:
    """For callbacks whose result nobody wants."""
