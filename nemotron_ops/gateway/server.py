"""The gateway: what all requests share. asyncio.

It holds the latest snapshot, the connections to llama-servers, the queues and the numbers; each request is an
`Exchange` in a task of its own. Nothing here waits for anything but the client or the instance it concerns.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from nemotron_ops.gateway import headers as heads
from nemotron_ops.gateway import replies, routes
from nemotron_ops.gateway.admission import Admission, Place, Ticket, least_loaded
from nemotron_ops.gateway.directory import Directory, hopeless, index, may_serve
from nemotron_ops.gateway.exchange import Exchange
from nemotron_ops.gateway.follow import Follower
from nemotron_ops.gateway.headers import Request
from nemotron_ops.gateway.http import ClientConnection, Limits
from nemotron_ops.gateway.keys import Key, KeyRing, admit
from nemotron_ops.gateway.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.prepare import Prepared
from nemotron_ops.gateway.replies import Refusal
from nemotron_ops.gateway.routes import Api, Kind, Route, Scope
from nemotron_ops.gateway.upstream import Upstream
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot

LIGHT_AT_ONCE = 32  # requests without a slot per instance; they only need llama-server's HTTP threads
SUSPECT_S = 0.25
MAX_SUSPECT_S = 4.0
SWEEP_S = 1.0
EXPECT_SNAPSHOT_S = 10.0
ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class Gateway:
    """One running gateway."""

    def __init__(self, options: Options, *, ring: KeyRing | None) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.ring = ring
        self.limits = Limits(body_bytes=options.max_body_mib << 20)
        self.metrics = Metrics()
        self.directory: Directory = index(Snapshot())
        self.upstreams: dict[str, Upstream] = {}
        self.slots = Admission()
        self.light = Admission()
        self.follower = Follower(options.control, self.apply)
        self.hosts = self._hosts()
        self.origins = frozenset(o.lower() for o in options.allowed_origin)
        self.clients: set[ClientConnection] = set()
        self.running: set[asyncio.Task[None]] = set()
        self.stopping = False
        self._seen = asyncio.Event()  # a snapshot has come
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._suspects: dict[str, tuple[float, int]] = {}  # instance -> until, failures in a row
        self._log: list[bytes] = []
        self._log_fd = self._open_log()

    # what the supervisor says

    def apply(self, snapshot: Snapshot) -> None:
        """Route by a new snapshot from here on."""
        before = self.directory.by_name
        self.directory = index(snapshot)
        self._seen.set()
        for view in snapshot.instances:
            old = before.get(view.name)
            if old is not None and (old.pid, old.socket, old.restarts) != (view.pid, view.socket, view.restarts):
                self._suspects.pop(view.name, None)
            upstream = self.upstreams.get(view.name)
            if upstream is None or upstream.socket != view.socket or (old is not None and old.pid != view.pid):
                self.upstreams[view.name] = Upstream(view.name, view.socket, _read_key(view.api_key_file))
            if view.cut and upstream is not None:
                upstream.cut()
        for name in before.keys() - self.directory.by_name.keys():
            self.upstreams.pop(name, None)
        for model in snapshot.models:
            self._pump(model.name)
            if refusal := hopeless(model, self.directory.instances.get(model.name, ())):
                self._fail_waiters(model.name, refusal)

    def instance_failed(self, name: str, model: str) -> None:
        """Give an instance nothing for a moment: it has just failed a request, and the snapshot may be behind."""
        _, failures = self._suspects.get(name, (0.0, 0))
        pause = min(MAX_SUSPECT_S, SUSPECT_S * 2**failures)
        self._suspects[name] = (self.loop.time() + pause, failures + 1)
        self.metrics.retries[(model, name)] += 1
        self.loop.call_later(pause + 0.001, self._pump, model)

    async def know(self) -> None:
        """Wait for the first snapshot. Raises Refusal if it does not come."""
        if self._seen.is_set():
            return
        try:
            async with asyncio.timeout(EXPECT_SNAPSHOT_S):
                await self._seen.wait()
        except TimeoutError:
            message = "the supervisor has not said yet what there is to serve"
            raise Refusal(status=503, code="no_supervisor", message=message, retry_after_s=2) from None

    # queueing

    def ticket(self, route: Route, prepared: Prepared, key: Key, size: int) -> Ticket:
        """A place in the line for a request."""
        light = route.kind in (Kind.LIGHT, Kind.INSPECT)
        return Ticket(model=prepared.named.model.name, key=key.id, weight=key.weight, bytes=size, light=light)

    async def admit(self, ticket: Ticket, model: ModelView, *, again: bool, waiting: Callable[[], None]) -> None:
        """Wait until `ticket` has an instance. Raises Refusal if that takes too long or makes no sense."""
        future: asyncio.Future[None] = self.loop.create_future()
        ticket.granted = lambda: None if future.done() else future.set_result(None)
        if self.stopping or self.directory.snapshot.stopping:
            raise Refusal(status=503, code="stopping", message="shutting down", retry_after_s=5)
        line = self._line(ticket)
        if again:
            line.retry(ticket)
        else:
            line.offer(
                ticket, now=self.loop.time(), length=model.queue_length,
                max_bytes=self.options.max_queued_mib << 20, slots=self._slot_count(model.name),
            )  # fmt: skip
        self._pump(model.name)
        if ticket.instance:
            return
        waiters = self._waiters.setdefault(model.name, set())
        waiters.add(future)
        try:
            await self._wait(ticket, model, future, waiting)
        finally:
            waiters.discard(future)
            if not ticket.instance:
                line.leave(ticket)

    async def _wait(
        self, ticket: Ticket, model: ModelView, future: asyncio.Future[None], waiting: Callable[[], None]
    ) -> None:  # fmt: skip
        if refusal := hopeless(model, self.directory.instances.get(model.name, ())):
            raise refusal
        deadline = ticket.since + model.queue_wait_s if ticket.since else self.loop.time() + model.queue_wait_s
        while not future.done():
            if model.on_demand and not any(map(may_serve, self.directory.instances.get(model.name, ()))):
                await self.follower.want(model.name)
            left = deadline - self.loop.time()
            if left <= 0:
                raise Refusal(
                    status=503, code="queue_timeout", retry_after_s=self.slots.wait_s(model.name, 1),
                    message=f"no instance of {model.name!r} was free within {model.queue_wait_s:g} s",
                )  # fmt: skip
            await asyncio.wait((future,), timeout=min(left, self.options.keep_alive_s))
            if not future.done():
                waiting()
        future.result()

    def release(self, ticket: Ticket, *, service_s: float | None) -> None:
        """A request has left its instance."""
        self._line(ticket).release(ticket, service_s=service_s)
        if service_s is not None:
            self._suspects.pop(ticket.instance, None)
        self._pump(ticket.model)

    def _pump(self, model: str) -> None:
        places = self._places(model)
        granted = self.slots.grants(model, places, self._choose)
        if self.light.length(model):
            wide = [Place(name=p.name, slots=LIGHT_AT_ONCE) for p in places]
            granted += self.light.grants(model, wide, lambda _, free: least_loaded(self.light.inflight, free))
        for ticket in granted:
            if ticket.granted is not None:
                ticket.granted()
        self.follower.report(self._inflight())

    def _line(self, ticket: Ticket) -> Admission:
        return self.light if ticket.light else self.slots

    def _inflight(self) -> dict[str, int]:
        counts = dict(self.slots.inflight)
        for name, count in self.light.inflight.items():
            counts[name] = counts.get(name, 0) + count
        return counts

    def _places(self, model: str) -> list[Place]:
        now = self.loop.time()
        return [
            Place(name=i.name, slots=max(1, i.slots))
            for i in self.directory.instances.get(model, ())
            if may_serve(i) and self._suspects.get(i.name, (0.0, 0))[0] <= now
        ]

    def _choose(self, ticket: Ticket, places: list[Place]) -> Place:
        return least_loaded(self.slots.inflight, places)

    def _slot_count(self, model: str) -> int:
        return sum(p.slots for p in self._places(model))

    def _fail_waiters(self, model: str, refusal: Refusal) -> None:
        for future in self._waiters.get(model, set()).copy():
            if not future.done():
                future.set_exception(refusal)

    # what clients do

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.clients.add(connection)
        self.metrics.connections_total += 1
        if len(self.clients) > self.options.max_connections or self.stopping:
            connection.close_when_idle()

    def closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""
        self.clients.discard(connection)

    def refused(self, connection: ClientConnection, refusal: Refusal) -> None:
        """A connection brought something that is no request."""
        self.metrics.errors[("", refusal.code)] += 1
        self.metrics.requests[("", "", str(refusal.status))] += 1

    def asked(self, connection: ClientConnection, request: Request) -> None:
        """A whole request has come."""
        route = self._route(request.method, request.path)
        exchange = Exchange(self, connection, request, route or UNKNOWN)
        exchange.id = request_id(request)
        try:
            if request.method == "OPTIONS":
                connection.reply(
                    204, b"", content_type=b"", extra=heads.preflight_headers(request.headers, self.origins)
                )
                return
            if route is None:
                raise self._no_route(request)
            heads.check_host(request.headers, self.hosts)
            heads.check_origin(request.headers, self.origins)
            text = heads.client_key(request.headers)
            exchange.key = admit(self.ring, text, route.scope, now=time.time())
        except Refusal as refusal:
            exchange.refuse(refusal)
            self.finished(exchange)
            return
        if route.kind is Kind.LOCAL:
            self._local(exchange)
            return
        task = self.loop.create_task(exchange.run())
        self.running.add(task)
        task.add_done_callback(self._ran)
        connection.on_gone = lambda: void(task.cancel())

    def _ran(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.log_bug(exc)

    def _route(self, method: str, path: str) -> Route | None:
        route = routes.find(method, path)
        return None if route is not None and route.native and not self.options.native else route

    def _no_route(self, request: Request) -> Refusal:
        allowed = routes.methods(request.path)
        if allowed:
            message = f"{request.path} takes {', '.join(allowed)}, not {request.method}"
            return Refusal(status=405, code="method_not_allowed", message=message)
        return Refusal(status=404, code="not_found", message=f"there is no {request.method} {request.path[:200]}")

    def _local(self, exchange: Exchange) -> None:
        request, route = exchange.request, exchange.route
        status, kind = 200, b"application/json; charset=utf-8"
        snapshot = self.directory.snapshot
        try:
            if route.path in ("/health", "/v1/health"):
                status, body = replies.health(snapshot)
            elif route.path in ("/v1/models", "/models"):
                allowed = frozenset(exchange.key.models) or None
                body = replies.models_body(snapshot, allowed)
            elif route.path == routes.MODEL_ROUTE.path:
                from urllib.parse import unquote

                named = self.directory.resolve(unquote(request.path.removeprefix(routes.MODEL_PATH)))
                body = json.dumps(replies.model_card(named.model, snapshot)).encode()
            else:
                raise Refusal(status=501, code="not_supported", message=f"{route.path} is not there yet")
        except Refusal as refusal:
            exchange.refuse(refusal)
        else:
            exchange.status = status
            exchange.client.reply(status, body, content_type=kind, extra=self.cors(request))
        self.finished(exchange)

    def cors(self, request: Request) -> list[tuple[bytes, bytes]]:
        """Headers that let an allowed web page read the answer."""
        return heads.cors_headers(request.headers, self.origins) if self.origins else []

    def finished(self, exchange: Exchange) -> None:
        """A request is over: count it."""
        metrics, model = self.metrics, exchange.model
        metrics.requests[(model, exchange.route.path, str(exchange.status or 499))] += 1
        if exchange.cause:
            metrics.errors[(model, exchange.cause)] += 1
        if not model:
            return
        metrics.duration_s[(model,)].observe(self.loop.time() - exchange.started)
        metrics.queue_s[(model,)].observe(exchange.queued_s)
        relay = exchange.relay
        if relay is not None and relay.began:
            metrics.first_token_s[(model,)].observe(relay.first_at - exchange.started)

    def log_bug(self, exc: BaseException) -> None:
        """Something that must not happen happened: say where, without any request's content."""
        lines = traceback.format_exception(exc)
        sys.stderr.write("".join(lines))
        sys.stderr.flush()

    # life

    async def run(self, servers: list[asyncio.Server], stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.follower.run()), group.create_task(self._sweep())]
            await stop.wait()
            await self._drain(servers)
            for task in tasks:
                task.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            for connection in list(self.clients):
                connection.check_deadline(now)

    async def _drain(self, servers: list[asyncio.Server]) -> None:
        """Accept nothing new, let running answers end, then cut what is left."""
        self.stopping = True
        for server in servers:
            server.close()
        for connection in list(self.clients):
            connection.close_when_idle()
        if self.running:
            await asyncio.wait(self.running, timeout=self.options.drain_s)
        for task in list(self.running):
            task.cancel()
        for connection in list(self.clients):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    def _hosts(self) -> frozenset[str] | None:
        if self.ring is not None and not self.options.allowed_host:
            return None
        return heads.LOOPBACK_HOSTS | frozenset(h.lower() for h in self.options.allowed_host)

    def _open_log(self) -> int:
        if not self.options.access_log:
            return -1
        if self.options.access_log == "-":
            return 2
        return os.open(self.options.access_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


UNKNOWN = Route(
    method="", path="", kind=Kind.LOCAL, scope=Scope.PUBLIC, api=Api.OTHER, upstream="", about=""
)  # fmt: skip


def request_id(request: Request) -> str:
    """The client's own request id if it is harmless, else a new one."""
    given = request.headers.get(b"x-request-id", b"").decode("latin-1")
    if given and len(given) <= 128 and ID_LETTERS.issuperset(given):
        return given
    return "req-" + secrets.token_hex(12)


def void(_: object) -> None:
    """For callbacks whose result nobody wants."""


def _read_key(path: str) -> str:
    try:
        return Path(path).read_text().strip() if path else ""
    except OSError:
        return ""
