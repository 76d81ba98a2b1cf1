"""Makes the access log's JSON line of a finished request. Pure."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.api.errors import CLIENT_GONE
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.streams.usage import Usage

NO_USAGE = Usage()
_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct):
    """One line of the access log."""

    time: float  # when the request ended, in seconds since 1970
    id: str
    client: str  # address
    key: str  # id
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


def line_of(record: Record, now: float, wall: float) -> Line:
    """The line of a finished request. `now` is the event loop's clock, `wall` the time in seconds since 1970."""
    relay, request = record.relay, record.request
    usage = record.usage or (relay.spent() if relay is not None else NO_USAGE)
    return Line(
        wall, record.id, record.client.peer, record.key.id, request.method,
        record.route.path or request.path[:200], record.model, record.instance, record.status or CLIENT_GONE,
        record.cause, record.tries, record.queued_s,
        relay.first_at - record.started if relay is not None and relay.began else None, now - record.started,
        len(request.body), record.client.answer.bytes_out(),
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens,
    )  # fmt: skip


def log_line(line: Line) -> bytes:
    """`line` as JSON, with its times rounded."""
    line.time = _rounded(line.time, 1e3)
    line.queue_s, line.duration_s = _rounded(line.queue_s, 1e4), _rounded(line.duration_s, 1e4)
    if line.first_token_s is not None:
        line.first_token_s = _rounded(line.first_token_s, 1e4)
    return _encode(line) + b"\n"


def _rounded(seconds: float, parts: float) -> float:
    """Rounded to 1/`parts` of a second, in a quarter of the time that `round` takes."""
    return int(seconds * parts + 0.5) / parts
