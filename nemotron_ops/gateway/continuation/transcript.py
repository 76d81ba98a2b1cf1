"""Reads from the events that were forwarded what a client has received of an answer. Pure.

A transcript is the same for every API: reasoning, content, tool calls as far as they went, and the ids and indexes that
the client has for message and blocks. It holds what a continuation needs, and nothing of a stream's format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.gateway.streams import sse


@dataclass(slots=True)
class Call:
    """A tool call as far as the client has received it."""

    name: str = ""
    arguments: str = ""
    pieces: list[str] = field(default_factory=list)  # of `arguments`, until `joined`


@dataclass(slots=True)
class Transcript:
    """What a client has received of an answer."""

    reasoning: str = ""
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    blocks: dict[int, str] = field(default_factory=dict)  # Anthropic: index -> type
    seen: set[str] = field(default_factory=set)  # keys of events that occur once; see `event_key`
    call_index: dict[int, int] = field(default_factory=dict)  # a block's index -> index in `calls`
    first: dict[str, Any] = field(default_factory=dict)  # the first event
    tokens: int = 0  # estimated: one for each event with text
    call_tokens: int = 0  # estimated: one for each event of a tool call
    token_ids: list[int] | None = field(default_factory=list)  # of `content`; None if some are unknown
    reasoning_closed: bool = False  # no reasoning can follow
    ending: bool = False  # the end has begun: no text can follow
    finished: bool = False
    content_pieces: list[str] = field(default_factory=list)  # of `content`, until `joined`
    reasoning_pieces: list[str] = field(default_factory=list)  # of `reasoning`, until `joined`

    def add(self, value: dict[str, Any]) -> None:
        """Add one event."""
        self.first = self.first or value
        pieces, calls = len(self.content_pieces) + len(self.reasoning_pieces), self._call_pieces()
        if "choices" in value:
            for choice in value["choices"]:
                self._add_choice(choice)
        elif "type" in value:
            self._add_block(value)
        elif "content" in value:
            self._add_native(value)
        self.tokens += len(self.content_pieces) + len(self.reasoning_pieces) > pieces
        self.call_tokens += self._call_pieces() > calls

    def joined(self) -> Transcript:
        """The transcript with its pieces joined. Joining each piece as it comes would take quadratic time."""
        self.content, self.reasoning = "".join(self.content_pieces), "".join(self.reasoning_pieces)
        for call in self.calls:
            call.arguments = "".join(call.pieces)
        return self

    def _call_pieces(self) -> int:
        return sum(1 + len(call.pieces) for call in self.calls)

    def _add_content(self, text: str | None) -> None:
        if text:
            self.content_pieces.append(text)

    def _add_reasoning(self, text: str | None) -> None:
        if text:
            self.reasoning_pieces.append(text)

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        self._add_content(choice.get("text"))
        delta = choice.get("delta") or {}
        self._add_content(delta.get("content"))
        self._add_reasoning(delta.get("reasoning_content"))
        for part in delta.get("tool_calls", ()):
            function, index = part.get("function") or {}, int(part.get("index", 0))
            while len(self.calls) <= index:
                self.calls.append(Call())
            self.calls[index].name += function.get("name") or ""
            if function.get("arguments"):
                self.calls[index].pieces.append(function["arguments"])
        self.finished |= bool(choice.get("finish_reason"))

    def _add_block(self, value: Mapping[str, Any]) -> None:
        """Add an event of Anthropic's API."""
        match value["type"]:
            case "content_block_start":
                block = value["content_block"]
                self.blocks[value["index"]] = block["type"]
                if block["type"] == "tool_use":
                    self.call_index[value["index"]] = len(self.calls)
                    self.calls.append(Call(name=block["name"]))
            case "content_block_delta":
                delta = value["delta"]
                self._add_content(delta.get("text"))
                self._add_reasoning(delta.get("thinking"))
                if "partial_json" in delta:
                    self.calls[self.call_index[value["index"]]].pieces.append(delta["partial_json"])
            case "message_delta":
                self.finished = True
            case _:
                pass
        self._add_once(value, self.blocks.get(value.get("index", -1)) == "thinking")

    def _add_once(self, value: Mapping[str, Any], reasoning: bool) -> None:
        if (key := event_key(value)) is None:
            return
        self.seen.add(key)
        if value["type"] == "content_block_stop":
            self.reasoning_closed |= reasoning
            self.ending |= not reasoning

    def _add_native(self, value: Mapping[str, Any]) -> None:
        """Add an event of llama-server's own completion. Its token count shows whether token ids are missing."""
        self._add_content(value["content"])
        self.finished |= value.get("stop") is True
        if self.token_ids is None or not value["content"]:
            self.token_ids = None if value.get("tokens") else self.token_ids  # a token without text yet
            return
        self.token_ids += value.get("tokens") or ()
        if len(self.token_ids) != value.get("tokens_predicted"):
            self.token_ids = None


def event_key(value: Mapping[str, Any], index: object = None) -> str | None:
    """The key of an event that occurs once in an answer, else None. `index` replaces that of its block or item."""
    kind = value["type"]
    if kind == "content_block_start":
        return None
    if kind == "content_block_delta":
        delta = value["delta"]["type"]
        return delta if delta == "signature_delta" else None
    if index is None:
        index = value.get("index", "")
    return f"{kind}:{index}"


def transcript_of(kept: Iterable[bytes]) -> Transcript:
    """The transcript of the `kept` events."""
    transcript = Transcript()
    for blob in kept:
        for value in sse.events(blob):
            if isinstance(value, dict) and "error" not in value:
                transcript.add(value)
    if not transcript.content_pieces:
        transcript.token_ids = None
    return transcript.joined()
