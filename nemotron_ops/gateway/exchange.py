"""One request, from its last byte to the end of its answer. asyncio.

    authorise -> prepare -> wait for a slot -> attempt -> whole answer, stream, or loss
                                 ^                          |
                                 +---- nothing was sent ----+

What a client has not seen can be tried again; what it has seen is continued or ends in an error, never in an end
that looks regular. A client that leaves cancels the task that runs this, and with it the work upstream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway import sse
from nemotron_ops.gateway.admission import Ticket
from nemotron_ops.gateway.attempt import Connected, Lost, Outcome, Streamed, Whole, attempt
from nemotron_ops.gateway.directory import Named
from nemotron_ops.gateway.headers import Request, upstream_head
from nemotron_ops.gateway.http import ClientConnection
from nemotron_ops.gateway.keys import ANYONE, Key, may_use
from nemotron_ops.gateway.prepare import Prepared, prepare
from nemotron_ops.gateway.relay import Relay
from nemotron_ops.gateway.replies import Refusal, error_body, error_event, upstream_error
from nemotron_ops.gateway.routes import Api, Kind, Route
from nemotron_ops.gateway.upload import form_field

if TYPE_CHECKING:
    from nemotron_ops.gateway.server import Gateway

EVENT_STREAM = b"text/event-stream"
JSON_TYPE = b"application/json; charset=utf-8"
NOT_READY = b"Loading model"


class Exchange:
    """One request being answered."""

    def __init__(self, gateway: Gateway, client: ClientConnection, request: Request, route: Route) -> None:
        self.gateway = gateway
        self.client = client
        self.request = request
        self.route = route
        self.key: Key = ANYONE
        self.id = ""
        self.started = gateway.loop.time()
        self.model = ""
        self.instance = ""
        self.status = 0
        self.cause = ""
        self.queued_s = 0.0
        self.ticket: Ticket | None = None
        self.relay: Relay | None = None
        self.tries = 0
        self._granted_at = 0.0

    async def run(self) -> None:
        """Answer the request, whatever happens. Cancelled when the client leaves."""
        try:
            await self._infer()
        except Refusal as refusal:
            self.refuse(refusal)
        except asyncio.CancelledError:
            self.cause = self.cause or "client_gone"
            raise
        except Exception as exc:  # noqa: BLE001  a bug in one request must not leave its client without an answer
            self.gateway.log_bug(exc)
            self.refuse(Refusal(status=500, code="internal", message="the gateway failed; its log says why"))
        finally:
            self._release(finished=False)
            self.gateway.finished(self)

    def refuse(self, refusal: Refusal) -> None:
        """End with an error, in the way that is still open."""
        self.cause = refusal.code
        self.status = refusal.status
        api = self.route.api
        if not self.client.began:
            extra = self._headers()
            if refusal.retry_after_s is not None:
                extra.append((b"Retry-After", b"%d" % max(1, round(refusal.retry_after_s))))
            self.client.reply(refusal.status, error_body(api, refusal), extra=extra)
            return
        self.client.send(error_event(api, refusal))
        self.client.abort()

    # one request for a model

    async def _infer(self) -> None:
        await self.gateway.know()
        prepared = self._prepare()
        self.model = prepared.named.model.name
        self._check_model(prepared.named)
        self.ticket = self.gateway.ticket(self.route, prepared, self.key, len(prepared.body))
        if self.route.kind is Kind.GENERATE and prepared.stream:
            self.relay = self._new_relay(prepared)
        while True:
            await self._admit(prepared)
            outcome = await self._attempt(prepared)
            if isinstance(outcome, Streamed):
                self._end_stream()
                return
            if isinstance(outcome, Whole) and not _not_ready(outcome):
                self._reply_whole(outcome, prepared.named.asked)
                return
            self._lost(outcome)

    def _prepare(self) -> Prepared:
        directory = self.gateway.directory
        if self.route.kind is Kind.UPLOAD:
            name = form_field(self.request.headers.get(b"content-type", b""), self.request.body, "model")
            named = directory.resolve(name)
            return Prepared(named=named, body=self.request.body, stream=False, fields={})
        if self.route.kind is Kind.INSPECT:
            return Prepared(named=directory.resolve(self.request.param("model")), body=b"", stream=False, fields={})
        return prepare(self.route, self.request.body, directory.resolve)

    def _check_model(self, named: Named) -> None:
        if not may_use(self.key, (named.model.name, *named.model.names)):
            raise Refusal(status=403, code="model_not_allowed", message="this API key may not use this model")

    async def _admit(self, prepared: Prepared) -> None:
        assert self.ticket is not None
        before = self.gateway.loop.time()
        await self.gateway.admit(self.ticket, prepared.named.model, again=self.tries > 0, waiting=self._waiting)
        self._granted_at = self.gateway.loop.time()
        self.queued_s += self._granted_at - before
        self.instance = self.ticket.instance

    def _waiting(self) -> None:
        """A comment for a client whose stream waits, so that nothing between us takes it for dead."""
        if self.relay is None:
            return
        if not self.client.began:
            self._begin()
        self.client.send(sse.KEEP_ALIVE)

    async def _attempt(self, prepared: Prepared) -> Outcome:
        self.tries += 1
        upstream = self.gateway.upstreams[self.instance]
        head = upstream_head(
            self.route.upstream, key=upstream.key, length=len(prepared.body),
            content_type=self.request.headers.get(b"content-type", b""), method=self.request.method,
        )  # fmt: skip
        connected = Connected()
        self.client.on_pause = connected.pause
        return await attempt(upstream, head, prepared.body, self.relay, on_connected=connected)

    def _lost(self, outcome: Lost | Whole) -> None:
        """An instance did not answer. Returns if another try makes sense; raises Refusal if not."""
        assert self.ticket is not None
        relay = self.relay
        if relay is not None and relay.complete:
            return
        reason = outcome.reason if isinstance(outcome, Lost) else "the engine is still loading"
        self.gateway.instance_failed(self.instance, self.model)
        self._release(finished=False)
        self.ticket.avoid = self.instance
        if relay is not None and relay.began:
            raise Refusal(status=502, code="engine_lost", message=f"the answer was cut off: {reason}")
        if self.tries > self.gateway.options.retries:
            raise Refusal(
                status=502, code="engine_lost", message=f"no instance could answer: {reason}", retry_after_s=1
            )

    def _release(self, *, finished: bool) -> None:
        ticket = self.ticket
        if ticket is not None and ticket.instance:
            service = self.gateway.loop.time() - self._granted_at if finished else None
            self.gateway.release(ticket, service_s=service)
            ticket.instance = ""

    # answers

    def _new_relay(self, prepared: Prepared) -> Relay:
        relay = Relay(
            self.route.api, prepared.named.asked, self.client, begin=self._begin, clock=self.gateway.loop.time
        )  # fmt: skip
        relay.on_gap = self.gateway.metrics.between_tokens_s[(prepared.named.model.name,)].observe
        return relay

    def _begin(self) -> None:
        self.status = 200
        if not self.client.began:
            self.client.begin(200, EVENT_STREAM, [*self._headers(), (b"Cache-Control", b"no-store")])

    def _end_stream(self) -> None:
        relay = self.relay
        assert relay is not None
        if relay.complete or relay.failed:
            self.cause = "engine_error" if relay.failed else ""
            self._release(finished=relay.complete)
            self.client.end()
            return
        raise Refusal(status=502, code="engine_lost", message="the answer was cut off: the engine ended it early")

    def _reply_whole(self, outcome: Whole, asked: str) -> None:
        self.status = outcome.status
        self._release(finished=outcome.status == 200)
        body = outcome.body
        if outcome.status >= 400:
            self.cause = "engine_refused" if outcome.status < 500 else "engine_error"
            body = upstream_error(self.route.api, outcome.status, body)
        elif own := sse.model_name(body):
            name = msgspec.json.encode(asked)[1:-1]
            body = body.replace(b'"model":"' + own + b'"', b'"model":"' + name + b'"')
        if self.client.began:  # comments went out while it waited: only an event can follow
            self.client.send(b"event: error\n" if self.route.api is Api.MESSAGES else b"")
            self.client.send(b"data: " + body + b"\n\n")
            self.client.abort()
            return
        self.client.reply(outcome.status, body, content_type=outcome.content_type or JSON_TYPE, extra=self._headers())

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"X-Request-Id", self.id.encode())]
        if self.instance:
            headers.append((b"X-Instance", self.instance.encode()))
            headers.append((b"X-Queue-Ms", b"%d" % round(self.queued_s * 1000)))
        return headers + self.gateway.cors(self.request)


def _not_ready(outcome: Whole) -> bool:
    return outcome.status == 503 and NOT_READY in outcome.body
