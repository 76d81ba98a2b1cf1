"""The gateway: holds what all clients share, from the first connection to the drain. asyncio.

Each request is an `Exchange` in a task of its own. No method blocks except `run`, which awaits shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections import defaultdict
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import msgspec

from nemotron_ops import __version__
from nemotron_ops.addresses import LOOPBACK_NAMES
from nemotron_ops.gateway.api import routes
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind, Route, Scope
from nemotron_ops.gateway.batches.inner import HOST
from nemotron_ops.gateway.batches.runner import Room, Runner
from nemotron_ops.gateway.client import heads
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.client.heads import Request
from nemotron_ops.gateway.client.reader import Limits
from nemotron_ops.gateway.continuation.recovery import Recovery
from nemotron_ops.gateway.exchange.exchange import Exchange
from nemotron_ops.gateway.exchange.keepalive import keep_alive, too_silent
from nemotron_ops.gateway.exchange.own_routes import reply_own
from nemotron_ops.gateway.keys import origin
from nemotron_ops.gateway.keys.hot_reload import ReloadedFiles
from nemotron_ops.gateway.keys.ring import ANYONE, Key, KeyRing, admit
from nemotron_ops.gateway.observe.accounting import Accounting
from nemotron_ops.gateway.openapi.describe import describe
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.shared import Shared

SWEEP_S = 1.0
DRAIN_POLL_S = 0.02
CUT_S = 1.0  # time for the last bytes of stopped responses to be sent
CLOSE_S = 5.0  # time for the last log lines to be written, on a disk that hangs
LARGE_BYTES = 1 << 20
SLOW_BYTES_PER_S = 65536.0  # a large body that comes more slowly makes room for others
SMALL_BODY_BYTES = 65536  # largest body for routes that use none
TURNED_AWAY = 64  # connections over the limit that still get an error response
ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
RUN = "req-" + os.urandom(8).hex()  # makes request ids unique among gateways
_counted = count(1)
UNKNOWN = Route(method="", path="", kind=Kind.LOCAL, scope=Scope.PUBLIC, api=Api.OTHER, upstream="", about="")


class CachedAuth(NamedTuple):
    """Cached authentication result: the headers that were checked, the key ring, and the key."""

    headers: tuple[object, ...]
    ring: KeyRing | None
    key: Key


class Gateway:
    """One running gateway."""

    def __init__(self, options: Options, *, ring: KeyRing | None, tls: ssl.SSLContext | None = None) -> None:
        self.options = options
        self.watch = ReloadedFiles(options, ring=ring, tls=tls)
        self.limits = Limits(body_bytes=options.max_body_mib << 20, write_stall_s=options.write_stall_s)
        self.accounting = Accounting(options)
        pages = {"/metrics": self._metrics, "/openapi.json": lambda: msgspec.json.encode(describe())}
        self.shared = Shared(options, self.accounting.metrics, pages)
        self.loop, self.pool, self.outbox = self.shared.loop, self.shared.pool, self.shared.outbox
        self.running: set[Exchange] = self.shared.running  # type: ignore[assignment]  # all are started here
        self.hosts = LOOPBACK_NAMES | frozenset(h.lower() for h in options.allowed_host)
        self.origins = frozenset(o.lower() for o in options.allowed_origin)
        self.clients: set[ClientConnection] = set()
        self._runner = Runner(self.shared.batches, self)
        self.shared.batch_made = self._runner.wake.set
        self._ran = self.ran  # bound once, not for each request
        self._free_bytes = options.max_receiving_mib << 20  # for bodies that are being received
        self._large = False  # a large body was received since memory was last returned

    # clients

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.clients.add(connection)
        excess = len(self.clients) - self.options.max_connections
        if excess > TURNED_AWAY and connection.transport is not None:
            connection.transport.abort()
        elif excess > 0:
            message = "too many clients are connected"
            connection.turn_away(Refusal(status=503, code="too_many_connections", message=message, retry_after_s=1))
        elif self.pool.stopping:
            connection.retire()  # accepted just before the listening sockets were closed

    def closed(self, connection: ClientConnection) -> None:
        """A client's connection is closed."""
        self.clients.discard(connection)

    def refused(self, connection: ClientConnection, request: Request | None, refusal: Refusal) -> None:
        """A connection received something that is not a whole request."""
        if request is None:
            request = Request(method="", path="", query="", headers={}, body=b"", keep_alive=False)
        route = self._route(request.method, request.path) or UNKNOWN
        exchange = self._exchange(connection, request, route)
        exchange.refuse(refusal)
        self.accounting.finished(exchange, now=self.loop.time())

    def welcome(self, connection: ClientConnection, request: Request) -> int:
        """The largest body that is accepted after this head. Raises Refusal before a body is read in vain."""
        route = self._route(request.method, request.path)
        if route is None:
            raise self._no_route(request)
        key = self._authenticate(connection, request, route)
        if route.infers:
            self.accounting.quotas.check(key, now=self.loop.time(), wall=time.time())
        return SMALL_BODY_BYTES if route.kind in (Kind.LOCAL, Kind.INSPECT) else self.limits.body_bytes

    def receiving(self, connection: ClientConnection, more: int) -> bool:
        """Count `more` bytes of bodies being received, or fewer if negative; returns whether there is room.

        Where there is none, the slowest of the large bodies makes room: few slow clients must not hold all of it. Then
        the bodies of whoever holds the most, for one who holds less than a fair share.
        """
        self._free_bytes -= more
        self._large |= abs(more) > LARGE_BYTES
        if self._free_bytes >= 0:
            return True
        now = self.loop.time()
        large = [c for c in self.clients if c.held_bytes > SMALL_BODY_BYTES]
        slow = sorted((c for c in large if c.pace(now) < SLOW_BYTES_PER_S), key=lambda c: c.pace(now))
        return self._evicted(slow) or self._evicted(self._of_the_greediest(connection, large))

    def _evicted(self, connections: list[ClientConnection]) -> bool:
        """Refuse bodies, one by one, until there is room; returns whether there is."""
        for connection in connections:
            connection.evict()
            if self._free_bytes >= 0:
                return True
        return False

    def _of_the_greediest(self, connection: ClientConnection, large: list[ClientConnection]) -> list[ClientConnection]:
        """The bodies of the key, or without keys of the address, that holds the most; the largest of them first.

        None if `connection` belongs to it, or holds a fair share of the room itself.
        """
        held: defaultdict[str, int] = defaultdict(int)
        for client in large:
            held[_holder(client)] += client.held_bytes
        mine, greediest = _holder(connection), max(held, key=lambda name: held[name], default="")
        share = (self.options.max_receiving_mib << 20) // max(1, len(held))
        if mine == greediest or held.get(mine, 0) > share:
            return []
        return sorted((c for c in large if _holder(c) == greediest), key=lambda c: -c.held_bytes)

    def asked(self, connection: ClientConnection, request: Request) -> None:
        """A whole request has arrived."""
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
                    self._start(exchange)  # a model list waits for the first snapshot instead of being empty
                    return
                reply_own(exchange, self.shared)
        except Refusal as refusal:
            exchange.refuse(refusal)
        self.accounting.finished(exchange, now=self.loop.time())

    def _exchange(self, connection: ClientConnection, request: Request, route: Route) -> Exchange:
        recovery = Recovery(route.wire, self.options.retries)
        return Exchange(
            connection, request, route, request_id(request), self.loop.time(), self.origins, recovery,
            shared=self.shared, ran=self._ran,
        )  # fmt: skip

    def _authenticate(self, connection: ClientConnection, request: Request, route: Route) -> Key:
        """The key that a request shows. Raises Refusal.

        Reuses the connection's last authentication while headers and key ring are unchanged.
        """
        get, ring = request.headers.get, self.watch.ring
        shown = (get(b"authorization"), get(b"host"), get(b"origin"), get(b"x-api-key"), route.scope)
        last = connection.cached_auth
        if isinstance(last, CachedAuth) and last.headers == shown and last.ring is ring and not last.key.expires_at:
            return last.key
        headers = request.headers
        origin.check_host(headers, self._hosts())
        origin.check_origin(headers, self.origins)
        key = admit(ring, heads.client_key(headers), route.scope, now=time.time())
        connection.cached_auth = CachedAuth(shown, ring, key)
        return key

    def _authorise(self, exchange: Exchange, route: Route) -> None:
        exchange.key = self._authenticate(exchange.client, exchange.request, route)
        if route.infers:
            self.accounting.quotas.enter(exchange.key, now=self.loop.time(), wall=time.time())
            exchange.entered = True

    def _start(self, exchange: Exchange) -> None:
        self.running.add(exchange)
        self.outbox.runs(len(self.running))
        exchange.start()

    def ran(self, exchange: Exchange) -> None:
        """A request that was started is over."""
        self.running.remove(exchange)
        self.outbox.runs(len(self.running))
        self.accounting.finished(exchange, now=self.loop.time())
        if len(exchange.request.body) > LARGE_BYTES:
            self._large = True
        exchange.request.body = b""  # freed now, even if something still refers to the exchange
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
        """Accepted Host headers; None for any, where a key is required anyway."""
        return None if self.watch.ring is not None and not self.options.allowed_host else self.hosts

    # batches

    def connect(self, key_id: str) -> ClientConnection:
        """A connection with the rights of the key that made a batch. Raises Refusal if it has none any more."""
        key = self._key_of(key_id)
        connection = ClientConnection(self, self.loop)
        shown = (None, HOST, None, None, Scope.INFERENCE)
        connection.cached_auth = CachedAuth(shown, self.watch.ring, key)
        return connection

    def room(self, asked: str) -> Room:
        """What the model that a batch asks for has room for. Raises Refusal if there is no such model."""
        name = self.pool.directory.resolve(asked).model.name
        return Room(*self.pool.room(name))

    def _key_of(self, key_id: str) -> Key:
        """The key with this id, without its expiry, which was checked here. Raises Refusal."""
        ring = self.watch.ring
        if ring is None:
            return ANYONE
        key = ring.keys.get(key_id) or next((k for k in ring.plain if k.id == key_id), None)
        if key is None or key.revoked_at or (key.expires_at and time.time() >= key.expires_at):
            raise Refusal(status=401, code="key_revoked", message="the API key of this batch is no longer valid")
        if not {Scope.INFERENCE, Scope.ADMIN} & {*key.scopes}:
            raise Refusal(status=403, code="scope", message="the API key of this batch lacks the scope 'inference'")
        return replace(key, expires_at=0.0)

    def _metrics(self) -> bytes:
        from nemotron_ops.gateway.observe.exposition import Picture, render

        self.accounting.settle()
        picture = Picture(
            metrics=self.accounting.metrics, snapshot=self.pool.snapshot, queue_length=self.pool.queue_lengths(),
            inflight=self.pool.inflight(), reserved_tokens=self.pool.reserved_tokens(),
            connections=len(self.clients), tasks=len(asyncio.all_tasks()) + len(self.running),
            connected=self.pool.follower.connected, version=__version__,
        )  # fmt: skip
        return render(picture)

    # lifecycle

    async def run(self, servers: list[asyncio.Server], stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in (self.pool.follower.run(), self._sweep(), keep_alive(self.shared))]
            batches = group.create_task(self._runner.run())
            accounting = group.create_task(self.accounting.run(over))
            await stop.wait()
            batches.cancel()  # its lines are sent again by the next process
            await self._drain(servers)
            over.set()
            await asyncio.wait((accounting,), timeout=CLOSE_S)
            for task in (*tasks, accounting):
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.to_thread(self.shared.responses.close)
        if self.accounting.tracing is not None:
            await asyncio.to_thread(self.accounting.tracing.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            for connection in list(self.clients):
                connection.check_deadline(now)
            if self._large and not self.running:
                self._large = False
                return_memory()
            if self.watch.look():
                self._cut_revoked()
            self._cut_silent(now)

    def _cut_revoked(self) -> None:
        """Stop the requests of revoked keys, running or queued."""
        ring = self.watch.ring
        for exchange in list(self.running):  # a copy: a stopped request leaves the set at once
            if ring is not None and exchange.key is not ANYONE and not ring.holds(exchange.key):
                exchange.cut = Refusal(status=401, code="key_revoked", message="this API key has been revoked")
                exchange.stop()

    def _cut_silent(self, now: float) -> None:
        """Stop the requests that an engine does not begin to answer: their slots are free then."""
        for exchange in list(self.running):
            if (refusal := too_silent(exchange, self.options.silence_s, now)) is not None:
                body, key = exchange.request.body, exchange.key_id
                self.shared.denylist.add(exchange.model, key, body, now)
                exchange.cut = refusal
                exchange.stop()

    async def _drain(self, servers: list[asyncio.Server]) -> None:
        """Accept no new request, answer the accepted ones, then stop those that are left.

        New clients wait in the backlog of the listening socket, for another process that holds the same socket.
        """
        self.pool.stopping = True
        for server in servers:
            server.close()
        for connection in list(self.clients):
            connection.retire()
        await self._until_all_left(self.options.drain_s)
        for exchange in list(self.running):  # a copy: a stopped request leaves the set at once
            exchange.stop()
        await self._until_all_left(CUT_S)
        for connection in list(self.clients):
            if connection.transport is not None:
                connection.transport.abort()
        self.pool.close()
        await asyncio.sleep(0.01)  # the loop closes aborted transports: uvloop waits for ever for open ones

    async def _until_all_left(self, within_s: float) -> None:
        """Wait until no client is connected and no request runs, and close silent connections."""
        end = self.loop.time() + within_s
        while self.loop.time() < end:
            await asyncio.sleep(DRAIN_POLL_S)  # first, so that just accepted connections are in `clients`
            if not self.clients and not self.running:
                return
            for connection in list(self.clients):
                connection.check_deadline(self.loop.time())


def _holder(connection: ClientConnection) -> str:
    """Whose room a connection's body takes: its key's, or where no keys are asked, its address's."""
    known = connection.cached_auth
    shown = known.key if isinstance(known, CachedAuth) else ANYONE
    return shown.id if shown is not ANYONE else connection.peer


def request_id(request: Request) -> str:
    """The client's own request id if its characters are safe, else a new one."""
    given = request.headers.get(b"x-request-id")
    if given and len(given) <= 128 and ID_LETTERS.issuperset(text := given.decode("latin-1")):
        return text
    return f"{RUN}-{next(_counted)}"


def return_memory() -> None:
    """Return freed memory to the system: glibc keeps the memory of large bodies, megabytes per connection.

    Called while no request runs, so that no stream waits for it.
    """
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
