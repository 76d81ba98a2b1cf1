"""Counts and logs finished requests: metrics, usage per key, access log, traces. Disk.

The log has one JSON line per request, without bodies or keys. Files are written by a thread, so no request waits for a
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import NamedTuple

from nemotron_ops.gateway.api.errors import CLIENT_GONE
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.key_usage import Table
from nemotron_ops.gateway.keys.quota import Quotas
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.gateway.observe import tracing
from nemotron_ops.gateway.observe.access_log import AccessLog
from nemotron_ops.gateway.observe.log_line import Line, line_of, log_line
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.streams.usage import usage_of_body
from nemotron_ops.gateway.warnings_log import OnceLog

WRITE_PERIOD_S = 1.0
SAVE_TICKS = 2  # write periods between two writes of the usage file; SIGKILL loses the usage since the last one
BATCH = 32  # requests settled together: each then costs a third of what it costs alone
LARGE_BYTES = 65536  # a larger response is settled at once, to free its memory


class Finished(NamedTuple):
    """A finished request that is not counted yet."""

    line: Line
    key: Key
    route: str  # as the metrics name it
    entered: bool  # counted against the key's quota
    whole: bytes  # a whole response, which states its own usage
    now: float  # by the event loop's clock
    record: Record | None  # for its trace


class Accounting:
    """Counts and logs requests, in batches."""

    def __init__(self, options: Options) -> None:
        self.metrics = Metrics()
        self.quotas = Quotas.go_on(keystore.read_usage(options.usage_file))
        self.log = AccessLog(options.access_log, limit_bytes=options.access_log_mib << 20)
        self._usage_file = options.usage_file
        self._failure = OnceLog("write the usage per key")
        self._ticks = 0
        self._finished: list[Finished] = []
        self.tracing = tracing.start(os.environ)

    def finished(self, record: Record, *, now: float) -> None:
        """Take a finished request; it is counted with the next batch.

        It is counted at once if its key has a token limit, or if its response is large.
        """
        key, whole = record.key, record.whole
        if record.entered:
            self.quotas.leave(key)
        traced = record if self.tracing is not None else None
        line = line_of(record, now, time.time())
        self._finished.append(Finished(line, key, record.route.path, record.entered, whole, now, traced))
        urgent = key.tokens_per_minute or key.tokens_per_day or len(whole) > LARGE_BYTES
        if urgent or len(self._finished) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Count and log all finished requests."""
        finished, self._finished = self._finished, []
        for line, key, route, entered, whole, now, traced in finished:
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

    async def run(self, stop: asyncio.Event) -> None:
        """Write log lines and usage once a second in a thread, and the rest of them after `stop`."""
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
        """Write log lines, and the unsaved usage `part`; returns the usage of all keys if that was written."""
        self.log.write(lines)
        if not part:
            return None
        try:
            now = keystore.add_usage(self._usage_file, part, known=known)
        except OSError as exc:
            self._failure.failed(exc)
            return None
        self._failure.recovered()
        return now
