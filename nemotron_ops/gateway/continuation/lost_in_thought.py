"""Thoughts without words in a stream: a model that ends its thinking and says nothing. Pure.

Until the first word of an answer (text, or a tool call) its events are watched, as bytes. An end that comes before it
is kept back, so that the answer can still be asked for; if there is none, the end goes out with
`"lost_in_thought": true` in it:

    chat        in the chunk with the `finish_reason`
    messages    in the `message_delta`
    responses   in the `response` of `response.completed`

An answer that ended because its tokens ran out is not lost: its end says so, but for that of a response, which
llama-server calls completed however it ended; there the numbers tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.fields import SPELLINGS
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.usage import Usage

THOUGHT = {
    Api.CHAT: b'"reasoning_content":"',
    Api.MESSAGES: b'"type":"thinking_delta"',
    Api.RESPONSES: b"event: response.reasoning_text.delta\n",
}
WORDS = {
    Api.CHAT: (b'"content":"', b'"tool_calls":['),
    Api.MESSAGES: (b'"type":"text_delta"', b'"type":"tool_use"'),
    Api.RESPONSES: (b"event: response.output_text.delta\n", b'"type":"function_call"'),
}
ENDS = {
    Api.CHAT: b'"finish_reason":"stop"',
    Api.MESSAGES: b'"stop_reason":"end_turn"',
    Api.RESPONSES: b"event: response.completed\n",
}
Rewrite = Callable[[bytes], bytes]


class Watch:
    """Passes events on, through `rewrite` if there is one, until an end without words; `held` is that end."""

    def __init__(self, api: Api, on_word: Callable[[], None], rewrite: Rewrite | None = None) -> None:
        self.api = api
        self.held = b""
        self.spoke = False
        self._thought = False
        self._on_word = on_word
        self._rewrite = rewrite

    @property
    def lost(self) -> bool:
        """Whether the stream is over and nothing was said."""
        return bool(self.held) and sse.is_complete(self.api, self.held)

    def over(self, rewrite: Rewrite) -> None:
        """What comes next is another attempt's."""
        self.held = b""
        self._rewrite = rewrite

    def __call__(self, blob: bytes) -> bytes:
        if self._rewrite is not None:
            blob = self._rewrite(blob)
        if self.spoke:
            return blob
        if self.held:
            self.held += blob
            return b""
        if any(mark in blob for mark in WORDS[self.api]):
            self.spoke = True
            if self._rewrite is None:
                self._on_word()
            return blob
        self._thought = self._thought or THOUGHT[self.api] in blob
        end = blob.find(ENDS[self.api]) if self._thought else -1
        if end < 0:
            return blob
        begin = blob.rfind(b"\n\n", 0, end) + 2 if b"\n\n" in blob[:end] else 0
        self.held = blob[begin:]
        return blob[:begin]


def can_be_lost(api: Api) -> bool:
    """Whether `api` tells thoughts from words."""
    return api in THOUGHT


def ran_out(api: Api, fields: Mapping[str, msgspec.Raw], usage: Usage | None, ctx_tokens: int) -> bool:
    """Whether a response ended because its tokens or its context ran out; False where the end itself says so."""
    if api is not Api.RESPONSES or usage is None:
        return False
    limits = [bytes(fields[name]) for name in SPELLINGS[api] if name in fields]
    if any(limit.isdigit() and usage.completion_tokens >= int(limit) for limit in limits):
        return True
    return 0 < ctx_tokens <= usage.prompt_tokens + usage.completion_tokens + 1


def marked(api: Api, end: bytes) -> bytes:
    """The end of a stream with the word that nothing was said."""
    return b"".join(_marked(api, event + b"\n\n") for event in end.split(b"\n\n")[:-1])


def _marked(api: Api, event: bytes) -> bytes:
    if ENDS[api] not in event:
        return event
    for value in sse.events(event):
        place: dict[str, Any] = value["response"] if api is Api.RESPONSES else value
        place["lost_in_thought"] = True
        return sse.event(value)
    return event
