"""Sends responses: whole, folded from a stream, the begin and end of a stream, errors. Writes to the connection."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.api import errors
from nemotron_ops.gateway.api.client_faults import status_of
from nemotron_ops.gateway.api.content_types import EVENT_STREAM, JSON, JSON_LINES
from nemotron_ops.gateway.api.context_overflow import overflow_in
from nemotron_ops.gateway.api.errors import Refusal, engine_error, error_body, error_event, error_object, upstream_error
from nemotron_ops.gateway.keys.origin import cors_headers
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.prepare import without
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import Fold
from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.gateway.upstream.attempt import Whole

# The second line keeps nginx from buffering a stream.
OF_STREAMS = (b"Cache-Control: no-store", b"X-Accel-Buffering: no")


def cors(record: Record) -> list[bytes]:
    """Header lines that let an allowed web page read the response."""
    return cors_headers(record.request.headers, record.origins) if record.origins else []


def headers(record: Record) -> list[bytes]:
    """The header lines that the gateway adds to a response."""
    line = b"X-Request-Id: " + record.id.encode()
    if record.instance:
        queue_ms = b"%d" % round(record.queued_s * 1000) if record.queued_s else b"0"
        line = b"\r\n".join((line, b"X-Instance: " + record.instance.encode(), b"X-Queue-Ms: " + queue_ms))
    lines = [*cors(record), line] if record.origins else [line]
    if record.healing is not None and (steps := record.healing.steps):
        lines.append(b"X-Tool-Calls-Healed: " + ", ".join(steps).encode())
    return lines


def refuse(record: Record, refusal: Refusal) -> None:
    """End the response with an error: as its status, or as an event if its head is out already."""
    record.cause = refusal.code
    record.status = refusal.status
    api, client = record.route.api, record.client
    if client.answer.began:
        client.answer.send(failure(record, refusal))
        client.abort()
        return
    extra = headers(record)
    if refusal.retry_after_s is not None:
        extra.append(b"Retry-After: %d" % max(1, round(refusal.retry_after_s)))
    if refusal.allow:
        extra.append(b"Allow: " + refusal.allow.encode())
    client.reply(refusal.status, error_body(api, refusal), extra=extra)


def refuse_in_stream(record: Record, refusal: Refusal) -> None:
    """Tell an error as OpenAI does where a response is streamed: clients compact only for that event."""
    begin_stream(record)
    record.cause = refusal.code
    record.client.answer.send(failure(record, refusal))
    record.client.end()


def begin_stream(record: Record) -> None:
    """Send the head of a stream, unless a comment has sent it already."""
    record.status = 200
    if not record.client.answer.began:
        record.client.begin(200, EVENT_STREAM, [*headers(record), *OF_STREAMS])


def begin_lines(record: Record) -> None:
    """Send the head of a stream of JSON lines."""
    record.status = 200
    if not record.client.answer.began:
        record.client.begin(200, JSON_LINES, [*headers(record), *OF_STREAMS])


def comment(record: Record) -> None:
    """Send an SSE comment, which keeps proxies from closing a silent connection. Folded streams get none."""
    if record.relay is None or not streams(record):
        return
    if not record.client.answer.began:
        begin_stream(record)
    record.client.answer.send(sse.KEEP_ALIVE)


def streams(record: Record) -> bool:
    """Whether the client gets the events themselves, as opposed to what a fold makes of them."""
    if record.relay is None:
        return False
    outlet = record.relay.outlet if record.healing is None else record.healing.behind(record.relay.outlet)
    return outlet is record.client.answer or (record.conversion is not None and outlet is record.conversion.stream)


def failure(record: Record, refusal: Refusal) -> bytes:
    """What ends a stream that has begun."""
    stream = None if record.conversion is None else record.conversion.stream
    if stream is None:
        return error_event(record.route.api, refusal)
    return stream.failed(error_object(record.route.api, refusal)["error"])


def check_stream(relay: Relay) -> None:
    """Raises Refusal if llama-server ended the stream with an error event."""
    if relay.failed:
        status = relay.error.get("code")
        raise Refusal(
            status=status if status in errors.REASONS else 500, code="engine_error",
            message=str(relay.error.get("message", "the engine gave no answer")),
        )  # fmt: skip


def end_stream(record: Record, fold: Fold | None) -> None:
    """End a stream, or reply with what `fold` made of it.

    Raises Refusal if that is nothing, AskAgain if a call in it is to be asked for again.
    """
    if fold is None:
        record.client.end()
        return
    result = fold.result()
    if result is None:
        raise Refusal(status=500, code="engine_error", message="the engine gave no answer")
    record.status = 200
    if record.healing is not None and record.healing.folds:
        result = record.healing.folded(result)
    extra = headers(record)
    if record.cause == "lost_in_thought":
        extra.append(b"X-Lost-In-Thought: true")
    record.client.reply(200, _converted(record, msgspec.json.encode(result)), extra=extra)


def _converted(record: Record, body: bytes) -> bytes:
    """A whole answer that was healed as the engine's API has it, as the client's API has it."""
    if record.healing is None or not record.healing.folds or record.conversion is None:
        return body
    return record.conversion.whole(body)


def reply_first(record: Record) -> bool:
    """Reply with the answer whose call was asked for again in vain; returns whether there is one."""
    if record.healing is None or record.healing.first is None:
        return False
    record.status, record.cause = 200, ""
    body = _converted(record, msgspec.json.encode(record.healing.first))
    record.client.reply(200, body, extra=headers(record))
    return True


def reply_whole(record: Record, whole: Whole, asked: str, *, hidden: str = "") -> None:
    """llama-server's response, or its error in the API's shape.

    `asked` is the client's name for the model, `hidden` a field that only the accounting reads.
    """
    if reply_first(record):
        return
    api, client, body = record.route.api, record.client, whole.body
    if record.conversion is not None and record.conversion.stream is not None and overflow_in(body) is not None:
        refuse_in_stream(record, engine_error(whole.status, body))
        return
    status = record.status = whole.status if whole.status < 500 else status_of(whole.status, body)
    if status >= 400:
        record.cause = "engine_refused" if status < 500 else "engine_error"
        body = upstream_error(api, whole.status, body)
    else:
        record.whole = body
        if hidden:
            body = without(body, hidden)
        if record.healing is not None:
            body = record.healing.whole(body)
        if record.conversion is not None:
            body = record.conversion.whole(body)
        elif (own := sse.name_in(body)) and own != (named := sse.named(asked)):
            body = body.replace(own, named)
    if client.answer.began:  # comments were sent while the request waited: only an event can follow
        error = failure(record, engine_error(whole.status, whole.body))
        client.answer.send(error if whole.status >= 400 else b"data: " + body + b"\n\n")
        client.abort()
        return
    client.reply(status, body, content_type=whole.content_type or JSON, extra=headers(record))


def reply_page(record: Record, whole: Whole | None) -> None:
    """llama-server's response, unchanged. Raises Refusal if there is none."""
    if whole is None:
        raise Refusal(status=502, code="engine_lost", message="the instance did not answer")
    record.status = whole.status
    record.client.reply(whole.status, whole.body, content_type=whole.content_type, extra=headers(record))
