"""Turns the events of a chat into those of a response. Pure.

A response's events are numbered, name their item and its place, and repeat at the end of each item what it holds; the
first and last ones carry the whole response. The last one waits for the chat's last event: the usage comes after the
finish reason. A call that the limit cut is never `done`: clients run calls that are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nemotron_ops.gateway.responses import response as objects
from nemotron_ops.gateway.responses.response import COMPLETED, CUT, IN_PROGRESS, INCOMPLETE, MARKS, Item
from nemotron_ops.gateway.responses.turn import Turn
from nemotron_ops.gateway.streams.relay import Outlet
from nemotron_ops.gateway.streams.sse import DONE, NOT_JSON

DATA = b"data: {"
PLAIN_FIELDS = 6  # of an event that carries one more token and nothing else
Ended = Callable[[dict[str, Any]], None]
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Open:
    """The item that grows now."""

    __slots__ = ("call", "index", "item", "kind", "pieces", "place")

    def __init__(self, kind: str, index: int, item: Item, call: dict[str, Any] | None = None) -> None:
        self.kind = kind  # the event of its deltas
        self.index = index
        self.item = item
        self.call = call  # the chat's call, if it is one
        self.pieces: list[str] = []
        self.place = {"item_id": item["id"], "output_index": index}


class ResponsesStream:
    """An outlet for a chat's events that passes a response's events on to `outlet`. `now` is Unix time in seconds."""

    def __init__(self, turn: Turn, outlet: Outlet, *, now: Callable[[], float], ended: Ended) -> None:
        self._turn = turn
        self._outlet = outlet
        self._now = now
        self._ended = ended  # gets the whole response just before the client does
        self._open: Open | None = None
        self._output: list[Item] = []
        self._calls: dict[int, int] = {}  # a call's index in the chat -> how many calls were begun before it
        self._count = 0  # items begun
        self._sequence = 0
        self._finish = ""
        self._usage: dict[str, Any] = {}
        self._marks: dict[str, Any] = {}
        self._reasoning_tokens = 0
        self._logprobs: list[Any] = []

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Pass on whole events of a chat."""
        out: list[bytes] = []
        if not self._sequence:
            self._begin(out)
        for event in data.split(b"\n\n"):
            if event.startswith(DATA):
                try:
                    value = _decode(event[6:])
                except NOT_JSON:
                    continue
                self._take(value, out)
            elif event == b":":  # a comment, which keeps the connection busy
                out.append(b":\n\n")
        if data.endswith(DONE):
            self._end(out)
        self._outlet.send(b"".join(out), last=last)

    def failed(self, error: dict[str, Any]) -> bytes:
        """The events that end the stream with `error`, an object with `type`, `code` and `message`."""
        out: list[bytes] = []
        if not self._sequence:
            self._begin(out)
        told = {name: error.get(name) for name in ("code", "message", "param")}
        self._say(out, "error", {**told, "error": error})
        response = objects.response_object(self._turn, "failed", self._output)
        response["error"] = {"code": error.get("code"), "message": error.get("message")}
        self._say(out, "response.failed", {"response": response})
        return b"".join(out)

    def _begin(self, out: list[bytes]) -> None:
        response = objects.response_object(self._turn, IN_PROGRESS, [])
        self._say(out, "response.created", {"response": response})
        self._say(out, "response.in_progress", {"response": response})

    def _say(self, out: list[bytes], kind: str, fields: dict[str, Any]) -> None:
        """One event with the next number."""
        data = _encode({"type": kind, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    def _take(self, value: dict[str, Any], out: list[bytes]) -> None:
        for choice in value.get("choices", ()):
            delta = choice.get("delta") or {}
            if text := delta.get("reasoning_content"):
                self._reasoning_tokens += 1
                self._more("response.reasoning_text.delta", text, out)
            if text := delta.get("content"):
                self._more("response.output_text.delta", text, out, choice.get("logprobs"))
            for call in delta.get("tool_calls") or ():
                self._more_of_call(call, out)
            self._finish = choice.get("finish_reason") or self._finish
        if len(value) > PLAIN_FIELDS:
            self._usage = value.get("usage") or self._usage
            self._marks |= {name: value[name] for name in MARKS if name in value}

    # text

    def _more(self, kind: str, text: str, out: list[bytes], logprobs: dict[str, Any] | None = None) -> None:
        """More reasoning, or more words."""
        item = self._open
        if item is None or item.kind != kind:
            self._close(out)
            item = self._open_text(kind, out)
        item.pieces.append(text)
        fields = {**item.place, "content_index": 0, "delta": text}
        if kind == "response.output_text.delta":
            found = objects.logprobs_of(logprobs.get("content") or ()) if logprobs else []
            self._logprobs += found
            fields["logprobs"] = found
        self._say(out, kind, fields)

    def _open_text(self, kind: str, out: list[bytes]) -> Open:
        index = self._next()
        if kind == "response.reasoning_text.delta":
            item = objects.reasoning_item(self._turn, index, "", IN_PROGRESS)
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        else:
            item = objects.message_item(self._turn, index, None, IN_PROGRESS)
            part = objects.text_part("")
        self._open, self._logprobs = Open(kind, index, item), []
        self._say(out, "response.output_item.added", {"output_index": index, "item": item})
        self._say(out, "response.content_part.added", {**self._open.place, "content_index": 0, "part": part})
        return self._open

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    # calls

    def _more_of_call(self, call: dict[str, Any], out: list[bytes]) -> None:
        index, function = int(call.get("index", 0)), call.get("function") or {}
        item = self._open
        if index not in self._calls or item is None or item.call is None:
            self._close(out)
            self._calls[index] = len(self._calls)
            item = self._open_call(call, out)
        elif self._calls[index] != len(self._calls) - 1:
            return  # a piece of a call that was done already
        text = function.get("arguments") or ""
        if not text:
            return
        item.pieces.append(text)
        if item.item["type"] == "function_call":  # free text is known only once its JSON is whole
            self._say(out, "response.function_call_arguments.delta", {**item.place, "delta": text})

    def _open_call(self, call: dict[str, Any], out: list[bytes]) -> Open:
        index = self._next()
        begun = {"id": call.get("id"), "function": {"name": (call.get("function") or {}).get("name")}}
        item = objects.call_item(self._turn, index, begun, IN_PROGRESS)
        begun["id"] = item["call_id"]
        self._open = Open("call", index, item, begun)
        self._say(out, "response.output_item.added", {"output_index": index, "item": item})
        return self._open

    # ends

    def _close(self, out: list[bytes], *, cut: bool = False) -> None:
        """End the item that grew, if there is one; `cut` if the limit ended it."""
        item, self._open = self._open, None
        if item is None:
            return
        text = "".join(item.pieces)
        if item.call is not None:
            self._close_call(item, text, out, cut=cut)
            return
        status = INCOMPLETE if cut else COMPLETED
        if item.kind == "response.reasoning_text.delta":
            whole = objects.reasoning_item(self._turn, item.index, text, status)
            self._say(out, "response.reasoning_text.done", {**item.place, "content_index": 0, "text": text})
            part: dict[str, Any] = {"type": "reasoning_text", "text": text}
        else:
            whole = objects.message_item(self._turn, item.index, text, status, self._logprobs)
            part = whole["content"][0]
            done = {**item.place, "content_index": 0, "text": text, "logprobs": self._logprobs}
            self._say(out, "response.output_text.done", done)
        self._say(out, "response.content_part.done", {**item.place, "content_index": 0, "part": part})
        self._item_done(item.index, whole, out)

    def _close_call(self, item: Open, text: str, out: list[bytes], *, cut: bool) -> None:
        assert item.call is not None
        function = item.call["function"]
        if cut and not objects.is_whole(text):
            self._marks.setdefault("truncated_tool_call", str(function.get("name") or ""))
            return
        whole = objects.call_item(self._turn, item.index, {**item.call, "function": {**function, "arguments": text}})
        if whole["type"] == "custom_tool_call":
            if whole["input"]:
                self._say(out, "response.custom_tool_call_input.delta", {**item.place, "delta": whole["input"]})
            self._say(out, "response.custom_tool_call_input.done", {**item.place, "input": whole["input"]})
        else:
            done = {**item.place, "name": whole["name"], "arguments": text}
            self._say(out, "response.function_call_arguments.done", done)
        self._item_done(item.index, whole, out)

    def _item_done(self, index: int, item: Item, out: list[bytes]) -> None:
        self._output.append(item)
        self._say(out, "response.output_item.done", {"output_index": index, "item": item})

    def _end(self, out: list[bytes]) -> None:
        cut = self._finish in CUT
        if not self._count:
            self._open_text("response.output_text.delta", out)
        self._close(out, cut=cut)
        status = INCOMPLETE if cut else COMPLETED
        usage = objects.usage_of(self._usage, self._reasoning_tokens)
        response = objects.response_object(
            self._turn, status, self._output, usage=usage, ended_at=int(self._now()), marks=self._marks
        )  # fmt: skip
        self._ended(response)
        self._say(out, f"response.{status}", {"response": response})
