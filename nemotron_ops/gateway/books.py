"""What is written down about requests: numbers, use per key, the access log. Disk.

The log has one JSON line per request, without bodies, keys or addresses' owners. Nothing here waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway import keystore, tracing
from nemotron_ops.gateway.accesslog import AccessLog
from nemotron_ops.gateway.metrics import Metrics
from nemotron_ops.gateway.notice import Trouble
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.quota import Quotas
from nemotron_ops.gateway.sse import Usage
from nemotron_ops.gateway.usage import Table

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange import Exchange

WRITE_PERIOD_S = 1.0
SAVE_TICKS = 2  # that many of them between two writes of the use per key: a SIGKILL loses what came since
NO_USAGE = Usage()
_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct):
    """One line of the access log."""

    time: float  # seconds since 1970, when the answer was over
    id: str
    client: str  # its address
    key: str  # its id
    method: str
    path: str
    model: str
    instance: str
    status: int  # 499: the client left before there was one
    cause: str  # of an error
    tries: int
    queue_s: float
    first_token_s: float | None
    duration_s: float
    bytes_in: int
    bytes_out: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Books:
    """All that is counted and logged."""

    def __init__(self, options: Options) -> None:
        self.metrics = Metrics()
        self.quotas = Quotas.go_on(keystore.read_usage(options.usage_file))
        self.log = AccessLog(options.access_log, limit_bytes=options.access_log_mib << 20)
        self._usage_file = options.usage_file
        self._trouble = Trouble("write the use per key")
        self._ticks = 0
        self.tracing = tracing.start(os.environ)

    def finished(self, exchange: Exchange, *, now: float) -> None:
        """A request is over."""
        metrics, model = self.metrics, exchange.model
        metrics.requests[(model, exchange.route.path, str(exchange.status or 499))] += 1
        if exchange.cause:
            metrics.errors[(model, exchange.instance, exchange.cause)] += 1
        elif not exchange.status:
            metrics.errors[(model, exchange.instance, "client_gone")] += 1
        relay = exchange.relay
        usage = exchange.usage or (relay.spent() if relay is not None else NO_USAGE)
        if exchange.entered:
            self.quotas.leave(
                exchange.key, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens,
                now=now, wall=time.time(),
            )  # fmt: skip
            metrics.key_requests[(exchange.key.id,)] += 1
        if model:
            self._count_model(exchange, usage, now)
        if self.log.wanted:
            self.log.add(log_line(exchange, usage, now))
        if self.tracing is not None:
            self.tracing.finished(exchange, usage, now)

    def _count_model(self, exchange: Exchange, usage: Usage, now: float) -> None:
        metrics, model = self.metrics, exchange.model
        metrics.duration_s[(model, exchange.instance)].observe(now - exchange.started)
        metrics.queue_s[(model,)].observe(exchange.queued_s)
        relay = exchange.relay
        if relay is not None and relay.began:
            metrics.first_token_s[(model, exchange.instance)].observe(relay.first_at - exchange.started)
        kinds = (
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
            ("cached", usage.cached_tokens),
        )
        for kind, count in kinds:
            if count:
                metrics.tokens[(model, exchange.instance, kind)] += count
                if kind != "cached":
                    metrics.key_tokens[(exchange.key.id, kind)] += count

    async def keep(self, stop: asyncio.Event) -> None:
        """Write what has been collected once a second, and what is left at the end.

        In a thread, so that no stream waits for a disk.
        """
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_PERIOD_S):
                    await stop.wait()
            self._ticks += 1
            due = self._ticks % SAVE_TICKS == 0 or stop.is_set()
            part = self.quotas.unsaved() if self._usage_file and due else {}
            if not part and not self.log.busy:
                continue
            now = await asyncio.to_thread(self._write, self.log.take(), part, self.quotas.known)
            if now is not None:
                self.quotas.saved(part, now)

    def _write(self, lines: list[bytes], part: Table, known: Table) -> Table | None:
        """Write log lines, and `part` of the use per key; returns the whole use if that was written."""
        self.log.write(lines)
        if not part:
            return None
        try:
            now = keystore.add_usage(self._usage_file, part, known=known)
        except OSError as exc:
            self._trouble.met(exc)
            return None
        self._trouble.over()
        return now


def log_line(exchange: Exchange, usage: Usage, now: float) -> bytes:
    """One request as a JSON line."""
    relay, request = exchange.relay, exchange.request
    first = round(relay.first_at - exchange.started, 4) if relay is not None and relay.began else None
    line = Line(
        round(time.time(), 3), exchange.id, exchange.client.peer, exchange.key.id, request.method,
        exchange.route.path or request.path[:200], exchange.model, exchange.instance, exchange.status or 499,
        exchange.cause, exchange.tries, round(exchange.queued_s, 4), first, round(now - exchange.started, 4),
        len(request.body), exchange.client.bytes_out,
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens,
    )  # fmt: skip
    return _encode(line) + b"\n"
