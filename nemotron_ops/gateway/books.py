"""What is written down about requests: numbers, use per key, the access log. Disk.

The log has one JSON line per request, without bodies, keys or addresses' owners; lines are collected and written
once a second.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from nemotron_ops.gateway import keystore, tracing
from nemotron_ops.gateway.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.sse import Usage

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange import Exchange

STDERR = 2
SAVE_PERIOD_S = 10.0
NO_USAGE = Usage()


class Books:
    """All that is counted and logged."""

    def __init__(self, options: Options) -> None:
        self.metrics = Metrics()
        self.quotas = keystore.read_usage(options.usage_file)
        self._usage_file = options.usage_file
        self._saved_at = 0.0
        self._lines: list[bytes] = []
        self._log_path = options.access_log
        self._log_fd = open_log(options.access_log)
        self.tracing = tracing.start(os.environ)

    def finished(self, exchange: Exchange, *, now: float) -> None:
        """A request is over."""
        metrics, model = self.metrics, exchange.model
        metrics.requests[(model, exchange.route.path, str(exchange.status or 499))] += 1
        if exchange.cause:
            metrics.errors[(model, exchange.cause)] += 1
        elif not exchange.status:
            metrics.errors[(model, "client_gone")] += 1
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
        if self._log_fd >= 0:
            self._lines.append(log_line(exchange, usage, now))
        if self.tracing is not None:
            self.tracing.finished(exchange, usage, now)

    def _count_model(self, exchange: Exchange, usage: Usage, now: float) -> None:
        metrics, model = self.metrics, exchange.model
        metrics.duration_s[(model,)].observe(now - exchange.started)
        metrics.queue_s[(model,)].observe(exchange.queued_s)
        relay = exchange.relay
        if relay is not None and relay.began:
            metrics.first_token_s[(model,)].observe(relay.first_at - exchange.started)
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

    def tick(self, now: float) -> None:
        """Write what has been collected. Called about once a second."""
        self.flush_log()
        if self._usage_file and self.quotas.changed and now - self._saved_at >= SAVE_PERIOD_S:
            self.save(now)

    def save(self, now: float) -> None:
        """Write the use per key."""
        self._saved_at = now
        if self._usage_file and self.quotas.changed:
            keystore.write_usage(self._usage_file, self.quotas)
            self.quotas.changed = False

    def flush_log(self) -> None:
        """Write the collected lines of the access log."""
        if self._lines:
            data, self._lines = b"".join(self._lines), []
            os.write(self._log_fd, data)

    def reopen_log(self) -> None:
        """The log file was moved away (rotation): go on with a new one."""
        self.flush_log()
        if self._log_fd > STDERR:
            os.close(self._log_fd)
            self._log_fd = open_log(self._log_path)


def open_log(path: str) -> int:
    """The access log's descriptor; -1 for none."""
    if not path:
        return -1
    if path == "-":
        return STDERR
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def log_line(exchange: Exchange, usage: Usage, now: float) -> bytes:
    """One request as a JSON line."""
    relay = exchange.relay
    first = relay.first_at - exchange.started if relay is not None and relay.began else None
    value = {
        "time": round(time.time(), 3), "id": exchange.id, "client": exchange.client.peer, "key": exchange.key.id,
        "method": exchange.request.method, "path": exchange.route.path or exchange.request.path[:200],
        "model": exchange.model, "instance": exchange.instance, "status": exchange.status or 499,
        "cause": exchange.cause, "tries": exchange.tries, "queue_s": round(exchange.queued_s, 4),
        "first_token_s": None if first is None else round(first, 4),
        "duration_s": round(now - exchange.started, 4), "bytes_in": len(exchange.request.body),
        "bytes_out": exchange.client.bytes_out, "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens, "cached_tokens": usage.cached_tokens,
    }  # fmt: skip
    return msgspec.json.encode(value) + b"\n"
