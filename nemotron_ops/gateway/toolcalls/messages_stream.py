"""Holds back what may be a call in a stream of the messages API, and heals it at its end. Pure.

A text block flows until a letter that can begin a marker; its start is sent with its first letters, and its end waits
for the end of what is held. Calls that were text become blocks behind it. The engine's own calls are held until they
are whole, and healed; those beyond what the request allows are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_ops.gateway.toolcalls.chat_shape import mark_invalid, new_id
from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level, ToolCall
from nemotron_ops.gateway.toolcalls.held_calls import HeldCalls
from nemotron_ops.gateway.toolcalls.outlet import Outlet
from nemotron_ops.gateway.toolcalls.plain_words import NONE, PlainWords
from nemotron_ops.gateway.toolcalls.read_json import NOT_JSON

BLOCK = b"event: content_block_"
TEXT = b'"text":"'
ENDING = b"event: message_delta\n"
LIMIT = "max_tokens"


class MessagesStream:
    """One message's events on their way to `outlet`. `answer` holds what healing found, once the stream has ended."""

    def __init__(self, ladder: Ladder, outlet: Outlet) -> None:
        self.answer = Answer()
        self._ladder, self.outlet = ladder, outlet
        self._words = PlainWords(TEXT)
        self._scanner = ladder.scanner(self._words.text)
        self._at_ease = False
        self._held = HeldCalls(active=ladder.level is not Level.OFF)
        self._calls: dict[int, ToolCall] = {}  # the engine's own, by the index of their block
        self._dropped: set[int] = set()  # indexes of blocks that are left out
        self._text = -1  # index of the text block
        self._open = False  # the client has its start
        self._closed = False  # the engine has sent its end, which the client does not have yet
        self._last = -1  # the highest index of a block

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Take whole events; what may go out goes to the outlet."""
        if self._at_ease:
            words = self._words
            word = data[words.at : words.until]
            event, kept = words.events.get(word, NONE)
            if event == data:
                words.said.append(kept)
                self.outlet.send(data, last=last)
                return
            if words.took(data, word):
                self.outlet.send(data, last=last)
                return
        out = b"".join(self._event(event + b"\n\n") for event in data.split(b"\n\n") if event)
        if out:
            self.outlet.send(out, last=last)

    def _event(self, event: bytes) -> bytes:
        if not event.startswith((BLOCK, ENDING)):
            return event
        try:
            value = msgspec.json.decode(event[event.index(b"\ndata: ") + 7 :])
            kind, index = value["type"], value.get("index", -1)
            if kind == "content_block_start":
                return self._start(event, index, value["content_block"])
            if kind == "content_block_delta":
                return self._delta(event, index, value["delta"])
            if kind == "content_block_stop":
                return self._stop(event, index)
            return self._end(value)
        except (*NOT_JSON, KeyError, ValueError, TypeError):
            return event

    def _start(self, event: bytes, index: int, block: dict[str, Any]) -> bytes:
        self._last = max(self._last, index)
        before = self._held.release() if self._calls and block["type"] != "tool_use" else b""
        if block["type"] == "text" and self._text < 0:
            self._text = index
            return before
        before += self._flush()
        if block["type"] != "tool_use":
            return before + event
        if len(self._calls) >= self._ladder.most:
            self._dropped.add(index)
            self.answer.note({"parallel"})
            return before
        self._calls[index] = ToolCall(str(block.get("name")), "", str(block.get("id") or ""))
        return before + self._held.add(event)

    def _delta(self, event: bytes, index: int, delta: dict[str, Any]) -> bytes:
        if index in self._dropped:
            return b""
        if index in self._calls:
            self._calls[index].arguments += delta.get("partial_json") or ""
            return self._held.add(event)
        text = delta.get("text")
        if index != self._text or not isinstance(text, str):
            return event
        out, scanner = self._scanner.feed(text), self._scanner
        if not scanner.attentive:
            self._words.said.append(out.encode())
            scanner.next_blob()
        self._at_ease = scanner.at_ease and (self._open or bool(out))
        if out == text:
            self._words.learn(event, text)
            return self._opened() + event
        return self._said(out)

    def _stop(self, event: bytes, index: int) -> bytes:
        if index in self._dropped:
            return b""
        if index in self._calls:
            return self._held.add(event)
        if index != self._text:
            return event
        self._closed = True
        return b""

    def _end(self, value: dict[str, Any]) -> bytes:
        """The end of the message, with the calls that were text before it."""
        answer, delta = self.answer, value["delta"]
        answer.length = delta.get("stop_reason") == LIMIT
        answer.calls = list(self._calls.values())
        held = self._scanner.held
        rest, leaks = self._scanner.end()
        promoted = self._ladder.promoted(leaks) if leaks and not answer.length and not answer.calls else None
        if promoted is None:
            out = self._close(held if leaks else rest)
            out += self._checked(value)
        else:
            answer.calls, steps = promoted
            answer.note(steps)
            out = (self._close("") if self._open else b"") + b"".join(map(self._block, answer.calls))
            delta["stop_reason"] = "tool_use"
        if answer.steps:
            value["tool_calls_healed"] = answer.steps
        return out + written(value)

    def _checked(self, value: dict[str, Any]) -> bytes:
        """The engine's own calls, healed; as they came if nothing had to be. `value` names wrong and cut ones."""
        answer, ladder = self.answer, self._ladder
        healed: set[str] = set()
        for call in answer.calls:
            healed |= ladder.mend(call) if self._held.whole and not answer.length else ladder.judge(call)
        if answer.length and answer.calls:
            ladder.check(answer)
            if answer.truncated_call:
                value["truncated_tool_call"] = answer.truncated_call
        mark_invalid(value, ladder, answer)
        events = self._held.take()
        if not healed:
            return events
        answer.note(healed)
        return b"".join(block_events(index, call) for index, call in self._calls.items())

    def _block(self, call: ToolCall) -> bytes:
        """The events of a call that was text."""
        index = self._last + 1 if self._open or self._text < 0 else self._text
        self._open, self._last = True, max(self._last, index)
        return block_events(index, call)

    def _flush(self) -> bytes:
        """All that is held, before a block of another type."""
        self._at_ease = False
        return self._close(self._scanner.end()[0]) if self._text >= 0 and self._closed else b""

    def _close(self, rest: str) -> bytes:
        """The rest of the text block, and its end if the engine has sent it."""
        if not self._closed:
            return self._said(rest)
        self._closed = False
        out = self._opened() + self._said(rest)
        return out + written({"type": "content_block_stop", "index": self._text})

    def _said(self, text: str) -> bytes:
        if not text:
            return b""
        delta = {"type": "text_delta", "text": text}
        return self._opened() + written({"type": "content_block_delta", "index": self._text, "delta": delta})

    def _opened(self) -> bytes:
        """The start of the text block, unless the client has it."""
        if self._open or self._text < 0:
            return b""
        self._open = True
        block = {"type": "text", "text": ""}
        return written({"type": "content_block_start", "index": self._text, "content_block": block})


def block_events(index: int, call: ToolCall) -> bytes:
    """The events of a whole call."""
    call.id = call.id or new_id()
    block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
    delta = {"type": "input_json_delta", "partial_json": call.arguments}
    return (
        written({"type": "content_block_start", "index": index, "content_block": block})
        + written({"type": "content_block_delta", "index": index, "delta": delta})
        + written({"type": "content_block_stop", "index": index})
    )


def written(value: dict[str, Any]) -> bytes:
    """A value as an event."""
    name: str = value["type"]
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
