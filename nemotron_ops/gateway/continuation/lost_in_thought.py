"""Detects answers that end after reasoning with no content, and holds their end back or marks it. Pure.

The events of a stream are searched, as bytes, until its first content (text, or a tool call). An end that comes before
any content is held back, so that content can still be asked for. If none comes, the end is sent with
`"lost_in_thought": true` in it:

    chat        in the chunk with the `finish_reason`
    messages    in the `message_delta`

An answer that ended because its tokens ran out is not lost in thought; its end says so.
"""

from __future__ import annotations

from collections.abc import Callable

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.streams import sse

REASONING_MARKS = {
    Api.CHAT: b'"reasoning_content":"',
    Api.MESSAGES: b'"type":"thinking_delta"',
}
CONTENT_MARKS = {
    Api.CHAT: (b'"content":"', b'"tool_calls":['),
    Api.MESSAGES: (b'"type":"text_delta"', b'"type":"tool_use"'),
}
END_MARKS = {
    Api.CHAT: b'"finish_reason":"stop"',
    Api.MESSAGES: b'"stop_reason":"end_turn"',
}
Rewrite = Callable[[bytes], bytes]


class LostInThought:
    """Passes events on, through `rewrite` if there is one, up to an end without content: that is `held_end`."""

    def __init__(self, api: Api, on_content: Callable[[], None], rewrite: Rewrite | None = None) -> None:
        self.api = api
        self.held_end = b""
        self.has_content = False
        self._has_reasoning = False
        self._on_content = on_content
        self._rewrite = rewrite

    @property
    def lost(self) -> bool:
        """Whether the stream has ended without content."""
        return bool(self.held_end) and sse.is_complete(self.api, self.held_end)

    def next_attempt(self, rewrite: Rewrite) -> None:
        """The next events come from another attempt."""
        self.held_end = b""
        self._rewrite = rewrite

    def __call__(self, blob: bytes) -> bytes:
        if self._rewrite is not None:
            blob = self._rewrite(blob)
        if self.has_content:
            return blob
        if self.held_end:
            self.held_end += blob
            return b""
        if any(mark in blob for mark in CONTENT_MARKS[self.api]):
            self.has_content = True
            if self._rewrite is None:
                self._on_content()
            return blob
        self._has_reasoning = self._has_reasoning or REASONING_MARKS[self.api] in blob
        end = blob.find(END_MARKS[self.api]) if self._has_reasoning else -1
        if end < 0:
            return blob
        begin = blob.rfind(b"\n\n", 0, end) + 2 if b"\n\n" in blob[:end] else 0
        self.held_end = blob[begin:]
        return blob[:begin]


def can_be_lost(api: Api) -> bool:
    """Whether the streams of `api` distinguish reasoning from content."""
    return api in REASONING_MARKS


def marked(api: Api, end: bytes) -> bytes:
    """The end of a stream, marked as lost in thought."""
    return b"".join(_marked(api, event + b"\n\n") for event in end.split(b"\n\n")[:-1])


def _marked(api: Api, event: bytes) -> bytes:
    if END_MARKS[api] not in event:
        return event
    for value in sse.events(event):
        value["lost_in_thought"] = True
        return sse.event(value)
    return event
