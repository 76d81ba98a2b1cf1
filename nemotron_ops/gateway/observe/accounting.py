"""What is written down about requests: numbers, use per key, the access log. Disk.

The log has one JSON line per request, without bodies, keys or addresses' owners. Nothing here waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nemotron_ops.gateway.api.errors import CLIENT_GONE
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.key_usage import Table
from nemotron_ops.gateway.keys.quota import Quotas
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.gateway.observe import tracing
from nemotron_ops.gateway.observe.access_log import AccessLog
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.streams.usage import Usage, usage_of_body
from nemotron_ops.gateway.warnings_log import Trouble

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange

WRITE_PERIOD_S = 1.0
SAVE_TICKS = 2  # that many of them between two writes of the use per key: a SIGKILL loses what came since
BATCH = 32  # requests that are written down together: the same again and again takes a third of the time
LARGE_BYTES = 65536  # of an answer that is not kept until others are written down
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
    status: int
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


class Ended(NamedTuple):
    """A request that is over."""

    line: Line
    key: Key
    route: str  # as the metrics name it
    entered: bool  # it got past the door
    whole: bytes  # an answer that says itself what it cost
    now: float  # by the event loop's clock
    exchange: Exchange | None  # where it is traced


class Books:
    """All that is counted and logged."""

    def __init__(self, options: Options) -> None:
        self.metrics = Metrics()
        self.quotas = Quotas.go_on(keystore.read_usage(options.usage_file))
        self.log = AccessLog(options.access_log, limit_bytes=options.access_log_mib << 20)
        self._usage_file = options.usage_file
        self._trouble = Trouble("write the use per key")
        self._ticks = 0
        self._ended: list[Ended] = []  # requests that are over and not counted yet
        self.tracing = tracing.start(os.environ)

    def finished(self, exchange: Exchange, *, now: float) -> None:
        """A request is over. What it cost is read and written down a little later: no other request waits for that.

        Where a limit of its key depends on it, or its answer takes much memory, that is done at once.
        """
        key, whole = exchange.key, exchange.whole
        if exchange.entered:
            self.quotas.leave(key)
        traced = exchange if self.tracing is not None else None
        line = line_of(exchange, now, time.time())
        self._ended.append(Ended(line, key, exchange.route.path, exchange.entered, whole, now, traced))
        urgent = key.tokens_per_minute or key.tokens_per_day or len(whole) > LARGE_BYTES
        if urgent or len(self._ended) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Write down all requests that are over."""
        all_ended, self._ended = self._ended, []
        for line, key, route, entered, whole, now, traced in all_ended:
            if whole and (usage := usage_of_body(whole)) is not None:
                line.prompt_tokens, line.completion_tokens = usage.prompt_tokens, usage.completion_tokens
                line.cached_tokens = usage.cached_tokens
            self._count(line, route)
            if entered:
                self.quotas.used(key, line.prompt_tokens, line.completion_tokens, now=now, wall=line.time)
                self.metrics.key_requests[(key.id,)] += 1
            if line.model:
                self._count_model(line)
            if self.tracing is not None and traced is not None:
                self.tracing.finished(traced, line, now)
            if self.log.wanted:
                self.log.add(log_line(line))

    def _count(self, line: Line, route: str) -> None:
        self.metrics.requests[(line.model, route, str(line.status))] += 1
        if cause := line.cause or ("client_gone" if line.status == CLIENT_GONE else ""):
            self.metrics.errors[(line.model, line.instance, cause)] += 1

    def _count_model(self, line: Line) -> None:
        metrics, model, instance, key = self.metrics, line.model, line.instance, line.key
        place = (model, instance)
        metrics.duration_s[place].observe(line.duration_s)
        metrics.queue_s[(model,)].observe(line.queue_s)
        if line.first_token_s is not None:
            metrics.first_token_s[place].observe(line.first_token_s)
        if line.prompt_tokens:
            metrics.tokens[(model, instance, "prompt")] += line.prompt_tokens
            metrics.key_tokens[(key, "prompt")] += line.prompt_tokens
        if line.completion_tokens:
            metrics.tokens[(model, instance, "completion")] += line.completion_tokens
            metrics.key_tokens[(key, "completion")] += line.completion_tokens
        if line.cached_tokens:
            metrics.tokens[(model, instance, "cached")] += line.cached_tokens

    async def keep(self, stop: asyncio.Event) -> None:
        """Write what has been collected once a second, and what is left at the end.

        In a thread, so that no stream waits for a disk.
        """
        last = False
        while not last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_PERIOD_S):
                    await stop.wait()
            last = stop.is_set()
            self._ticks += 1
            self.settle()
            due = last or self._ticks % SAVE_TICKS == 0
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


def line_of(exchange: Exchange, now: float, wall: float) -> Line:
    """A request that is over. `now` is of the event loop's clock, `wall` in seconds since 1970."""
    relay, request = exchange.relay, exchange.request
    usage = exchange.usage or (relay.spent() if relay is not None else NO_USAGE)
    return Line(
        wall, exchange.id, exchange.client.peer, exchange.key.id, request.method,
        exchange.route.path or request.path[:200], exchange.model, exchange.instance, exchange.status or CLIENT_GONE,
        exchange.cause, exchange.tries, exchange.queued_s,
        relay.first_at - exchange.started if relay is not None and relay.began else None, now - exchange.started,
        len(request.body), exchange.client.answer.bytes_out(),
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens,
    )  # fmt: skip


def log_line(line: Line) -> bytes:
    """`line` as JSON; its times are rounded."""
    line.time = _rounded(line.time, 1e3)
    line.queue_s, line.duration_s = _rounded(line.queue_s, 1e4), _rounded(line.duration_s, 1e4)
    if line.first_token_s is not None:
        line.first_token_s = _rounded(line.first_token_s, 1e4)
    return _encode(line) + b"\n"


def _rounded(seconds: float, parts: float) -> float:
    """To so many parts of a second. `round` takes four times as long."""
    return int(seconds * parts + 0.5) / parts
