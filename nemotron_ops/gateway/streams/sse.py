"""Server-sent events as bytes: boundaries, ends of answers, errors, names. Pure.

A stream is inspected in blobs of whole events. Inside JSON, quotes and line ends are escaped, so a marker such as
`"stop":true` or a line `event: message_stop` cannot come from generated text. The hot path searches by `find`, because
`in` first tries to convert its left side to a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api

# The errors of decoding JSON; llama-server's own parser refuses all such input too.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
KEEP_ALIVE = b":\n\n"  # a comment, which clients ignore and proxies take for traffic
DONE = b"data: [DONE]\n\n"
MODEL = b'"model":"'  # llama-server's name follows
LAST_EVENT = {  # carries nothing but the end of the stream
    Api.CHAT: DONE,
    Api.COMPLETION: DONE,
    Api.MESSAGES: b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}
# Prefixes of events that carry one more token and nothing else: no end, no error, no usage.
PLAIN = (
    b'data: {"choices":[{"finish_reason":null,',
    b"event: content_block_delta\n",
)


def whole_events(data: bytes) -> int:
    """The length of the whole events at the beginning of `data`."""
    end = data.rfind(b"\n\n")
    return 0 if end < 0 else end + 2


def is_complete(api: Api, blob: bytes) -> bool:
    """Whether `blob`, the latest events, holds the one that completes the answer."""
    match api:
        case Api.CHAT | Api.COMPLETION | Api.RESPONSES:
            return blob.endswith(DONE)
        case Api.MESSAGES:
            return b"event: message_stop\n" in blob
        case Api.NATIVE:
            return b'"stop":true' in blob
        case Api.OTHER | Api.OLLAMA:
            return b'"type":"transcript.text.done"' in blob or blob.endswith(DONE)


def is_last(api: Api, blob: bytes) -> bool:
    """Whether no event can follow `blob`; if that is not certain, the end of the connection tells."""
    mark = LAST_EVENT.get(api)
    return mark is not None and blob.endswith(mark)


CONTEXT_FULL = b"Context size has been exceeded."  # sent to all requests whose slots share the context


def is_context_full(blob: bytes) -> bool:
    """Whether llama-server ends a stream in `blob` because the context that slots share is full."""
    return blob.find(CONTEXT_FULL) >= 0 and is_error(blob)


def is_error(blob: bytes) -> bool:
    """Whether `blob` holds an error event of llama-server."""
    return blob.find(b'data: {"error":') >= 0 or blob.find(b"event: error\n") >= 0


def count_events(blob: bytes) -> int:
    """The number of data events in `blob`, about that of its tokens."""
    return blob.count(b"data: ")


def events(blob: bytes) -> Iterator[Any]:
    """The JSON values of the data events in `blob`; other data is skipped."""
    for event in blob.split(b"\n\n"):
        if event.startswith(b"data: {") and b"\n" not in event:  # nearly all events
            data = event[6:]
        else:
            data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not data or data == b"[DONE]":
            continue
        try:
            yield msgspec.json.decode(data)
        except NOT_JSON:
            continue


def event(value: dict[str, Any]) -> bytes:
    """A value as an event, in the way of its API: with a name if it has a type."""
    name = b"event: " + value["type"].encode() + b"\n" if "type" in value else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def split_error(blob: bytes) -> tuple[bytes, dict[str, Any]]:
    """The events before llama-server's error event in `blob`, and its content (`code`, `message`, `type`)."""
    begin = 0
    for part in blob.split(b"\n\n"):
        if is_error(part):
            value = next(events(part), None)
            inner = value.get("error", value) if isinstance(value, dict) else None
            return blob[:begin], inner if isinstance(inner, dict) else {}
        begin += len(part) + 2
    return blob, {}


def answer_id(blob: bytes) -> str:
    """The id of a chat whose first events are in `blob`."""
    start = blob.find(b'"id":"') + 6
    return blob[start : blob.find(b'"', start)].decode(errors="replace") if start >= 6 else ""


def name_in(blob: bytes) -> bytes:
    """llama-server's name in `blob`, as `"model":"name"`; empty if it is not there."""
    start = blob.find(MODEL)
    return blob[start : blob.find(b'"', start + len(MODEL)) + 1] if start >= 0 else b""


@lru_cache(maxsize=256)
def named(name: str) -> bytes:
    """`name` in the form that `name_in` returns."""
    return b'"model":' + msgspec.json.encode(name)
