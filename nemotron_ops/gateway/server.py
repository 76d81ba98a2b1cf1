"""The gateway: what all clients share, from the first connection to the drain. asyncio.

Each request is an `Exchange` in a task of its own; nothing here waits for anything but the end.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import traceback
from itertools import count
from typing import NamedTuple

from nemotron_ops import __version__
from nemotron_ops.addresses import LOOPBACK_NAMES
from nemotron_ops.gateway.api import routes
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind, Route, Scope
from nemotron_ops.gateway.client import heads
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.client.heads import Request
from nemotron_ops.gateway.client.reader import Limits
from nemotron_ops.gateway.continuation.recovery import Recovery
from nemotron_ops.gateway.exchange import own_routes
from nemotron_ops.gateway.exchange.exchange import Exchange
from nemotron_ops.gateway.exchange.keepalive import Silence
from nemotron_ops.gateway.keys import origin
from nemotron_ops.gateway.keys.hot_reload import ReloadedFiles
from nemotron_ops.gateway.keys.ring import ANYONE, Key, KeyRing, admit
from nemotron_ops.gateway.loop.outbox import Outbox
from nemotron_ops.gateway.observe.accounting import Books
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.streams.kept import Memory
from nemotron_ops.gateway.warnings_log import say

SWEEP_S = 1.0
DRAIN_POLL_S = 0.02
CUT_S = 1.0  # for the last words of what was cut to go out
CLOSE_S = 5.0  # for the last lines to be written, where a disk hangs
LARGE_BYTES = 1 << 20
SMALL_BODY_BYTES = 65536  # of requests that have no use for one
TURNED_AWAY = 64  # connections beyond the bound that still get to hear why
ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
RUN = "req-" + os.urandom(8).hex()  # tells this gateway's requests from all others'
_counted = count(1)
UNKNOWN = Route(method="", path="", kind=Kind.LOCAL, scope=Scope.PUBLIC, api=Api.OTHER, upstream="", about="")


class Guest(NamedTuple):
    """Who was let in, what it had shown, and which keys there were."""

    shown: tuple[object, ...]
    ring: KeyRing | None
    key: Key


class Gateway:
    """One running gateway."""

    def __init__(self, options: Options, *, ring: KeyRing | None, tls: ssl.SSLContext | None = None) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.watch = ReloadedFiles(options, ring=ring, tls=tls)
        self.limits = Limits(body_bytes=options.max_body_mib << 20, write_stall_s=options.write_stall_s)
        self.books = Books(options)
        self.pool = Pool(options, self.books.metrics)
        self.memory = Memory()
        self.outbox = Outbox(self.loop)
        self.silence = Silence(options.keep_alive_s)
        self.steerable: set[Exchange] = set()  # streams that take a word while they run
        self.hosts = LOOPBACK_NAMES | frozenset(h.lower() for h in options.allowed_host)
        self.origins = frozenset(o.lower() for o in options.allowed_origin)
        self.clients: set[ClientConnection] = set()
        self.running: set[Exchange] = set()
        self._room = options.max_receiving_mib << 20  # for bodies that are on their way here
        self._large = False  # a large body was here since memory was given back

    # clients

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.clients.add(connection)
        beyond = len(self.clients) - self.options.max_connections
        if beyond > TURNED_AWAY and connection.transport is not None:
            connection.transport.abort()
        elif beyond > 0:
            message = "too many clients are connected"
            connection.turn_away(Refusal(status=503, code="too_many_connections", message=message, retry_after_s=1))
        elif self.pool.stopping:
            connection.retire()  # accepted just before the door was closed

    def closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""
        self.clients.discard(connection)

    def refused(self, connection: ClientConnection, request: Request | None, refusal: Refusal) -> None:
        """A connection brought something that is no whole request."""
        if request is None:
            request = Request(method="", path="", query="", headers={}, body=b"", keep_alive=False)
        route = self._route(request.method, request.path) or UNKNOWN
        exchange = self._exchange(connection, request, route)
        exchange.refuse(refusal)
        self.books.finished(exchange, now=self.loop.time())

    def welcome(self, connection: ClientConnection, request: Request) -> int:
        """How large a body we take for a request whose head has come. Raises Refusal: who may not ask sends none."""
        route = self._route(request.method, request.path)
        if route is None:
            raise self._no_route(request)
        self._who(connection, request, route)
        return SMALL_BODY_BYTES if route.kind in (Kind.LOCAL, Kind.INSPECT) else self.limits.body_bytes

    def receiving(self, more: int) -> bool:
        """So many bytes more of bodies have come, or so many less are still on their way."""
        self._room -= more
        self._large |= abs(more) > LARGE_BYTES
        return self._room >= 0

    def asked(self, connection: ClientConnection, request: Request) -> None:
        """A whole request has come."""
        route = self._route(request.method, request.path)
        exchange = self._exchange(connection, request, route or UNKNOWN)
        try:
            if request.method == "OPTIONS":
                extra = origin.preflight_headers(request.headers, self.origins)
                exchange.status = 204
                connection.reply(204, b"", content_type=b"", extra=extra)
            elif route is None:
                raise self._no_route(request)
            else:
                self._authorise(exchange, route)
                if not route.local or (not self.pool.known and route.scope is Scope.INFERENCE):
                    self._start(exchange)  # a list of models waits for the first snapshot rather than be empty
                    return
                self.answer(exchange)
        except Refusal as refusal:
            exchange.refuse(refusal)
        self.books.finished(exchange, now=self.loop.time())

    def _exchange(self, connection: ClientConnection, request: Request, route: Route) -> Exchange:
        recovery = Recovery(route.api, self.options.retries)
        return Exchange(
            self, self.pool, self.loop, connection, request, route, request_id(request), self.loop.time(), recovery
        )

    def _who(self, connection: ClientConnection, request: Request, route: Route) -> Key:
        """Who asks. Raises Refusal. A connection that shows what it was let in with before is let in again."""
        get, ring = request.headers.get, self.watch.ring
        shown = (get(b"authorization"), get(b"host"), get(b"origin"), get(b"x-api-key"), route.scope)
        guest = connection.cached_auth
        if isinstance(guest, Guest) and guest.shown == shown and guest.ring is ring and not guest.key.expires_at:
            return guest.key
        headers = request.headers
        origin.check_host(headers, self._hosts())
        origin.check_origin(headers, self.origins)
        key = admit(ring, heads.client_key(headers), route.scope, now=time.time())
        connection.cached_auth = Guest(shown, ring, key)
        return key

    def _authorise(self, exchange: Exchange, route: Route) -> None:
        exchange.key = self._who(exchange.client, exchange.request, route)
        if route.infers:
            self.books.quotas.enter(exchange.key, now=self.loop.time(), wall=time.time())
            exchange.entered = True

    def answer(self, exchange: Exchange) -> None:
        """Answer what no llama-server is needed for. Raises Refusal."""
        status, kind, body = own_routes.answer(
            exchange.route, exchange.request, exchange.key, self.pool.directory, metrics=self._metrics
        )  # fmt: skip
        exchange.status = status
        exchange.client.reply(status, body, content_type=kind, extra=self.cors(exchange.request))

    def _start(self, exchange: Exchange) -> None:
        self.running.add(exchange)
        self.outbox.runs(len(self.running))
        exchange.start()

    def ran(self, exchange: Exchange) -> None:
        """A request that was started is over."""
        self.running.remove(exchange)
        self.outbox.runs(len(self.running))
        self.books.finished(exchange, now=self.loop.time())
        if len(exchange.request.body) > LARGE_BYTES:
            self._large = True
        exchange.request.body = b""  # also where something still holds the exchange for a while
        if exchange.relay is not None:
            self._large |= exchange.relay.kept.size > LARGE_BYTES // 16
            exchange.relay.forget()

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
        return None if self.watch.ring is not None and not self.options.allowed_host else self.hosts

    def cors(self, request: Request) -> list[bytes]:
        """Header lines that let an allowed web page read the answer."""
        return origin.cors_headers(request.headers, self.origins) if self.origins else []

    def _metrics(self) -> bytes:
        from nemotron_ops.gateway.observe.exposition import Picture, render

        self.books.settle()
        picture = Picture(
            metrics=self.books.metrics, snapshot=self.pool.snapshot, queue_length=self.pool.queue_lengths(),
            inflight=self.pool.inflight(), reserved_tokens=self.pool.reserved_tokens(),
            connections=len(self.clients), tasks=len(asyncio.all_tasks()) + len(self.running),
            connected=self.pool.follower.connected, version=__version__,
        )  # fmt: skip
        return render(picture)

    def log_bug(self, exc: BaseException) -> None:
        """Something that must not happen happened: say where, without any request's content."""
        frames = "".join(traceback.format_tb(exc.__traceback__))
        say(f"bug in the gateway: Traceback:\n{frames}{type(exc).__name__}")

    # life

    async def run(self, servers: list[asyncio.Server], stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in (self.pool.follower.run(), self._sweep(), self.silence.run())]
            books = group.create_task(self.books.keep(over))
            await stop.wait()
            await self._drain(servers)
            over.set()
            await asyncio.wait((books,), timeout=CLOSE_S)
            for task in (*tasks, books):
                task.cancel()
        if self.books.tracing is not None:
            await asyncio.to_thread(self.books.tracing.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            for connection in list(self.clients):
                connection.check_deadline(now)
            if self._large and not self.running:
                self._large = False
                give_memory_back()
            if self.watch.look():
                self._cut_revoked()

    def _cut_revoked(self) -> None:
        """End what is being done, or waits to be done, for keys that are no more."""
        ring = self.watch.ring
        for exchange in list(self.running):  # one that is stopped leaves it at once
            if ring is not None and exchange.key is not ANYONE and not ring.holds(exchange.key):
                exchange.cut = Refusal(status=401, code="key_revoked", message="this API key has been revoked")
                exchange.stop()

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
        for exchange in list(self.running):  # one that is stopped leaves it at once
            exchange.stop()
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
    given = request.headers.get(b"x-request-id")
    if given and len(given) <= 128 and ID_LETTERS.issuperset(text := given.decode("latin-1")):
        return text
    return f"{RUN}-{next(_counted)}"


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
