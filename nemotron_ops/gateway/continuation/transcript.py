"""What a client has seen of an answer, read from the events that were passed on. Pure.

Of every API the same is remembered: thoughts, text, tool calls as far as they went, and under which names (message,
items, blocks) the client knows them. All that a continuation needs, and nothing of how a stream is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.gateway.streams import sse

CLOSING = frozenset({"response.output_item.done", "content_block_stop"})


@dataclass(slots=True)
class Call:
    """A tool call as far as the client has seen it. `id` and `call_id` are those of a response's item."""

    name: str = ""
    arguments: str = ""
    id: str = ""
    call_id: str = ""
    pieces: list[str] = field(default_factory=list)  # of the arguments, while they are read


@dataclass(slots=True)
class Said:
    """What a client has seen of an answer."""

    reasoning: str = ""
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    blocks: dict[int, str] = field(default_factory=dict)  # Anthropic's: index -> type
    items: dict[str, str] = field(default_factory=dict)  # a response's: type -> id
    seen: set[str] = field(default_factory=set)  # events that come once; see `event_key`
    places: dict[object, int] = field(default_factory=dict)  # block's index or item's id -> which of the calls
    first: dict[str, Any] = field(default_factory=dict)  # the first event
    sequence: int = -1  # the last `sequence_number`
    tokens: int = 0  # about: one per event with text
    call_tokens: int = 0  # the same of calls
    token_ids: list[int] | None = field(default_factory=list)  # of `content`; None where some are not known
    thought_out: bool = False  # the thoughts are closed
    ending: bool = False  # the end has begun: nothing more may be said
    finished: bool = False
    words: list[str] = field(default_factory=list)  # pieces of `content`, while it is read
    thoughts: list[str] = field(default_factory=list)  # pieces of `reasoning`

    def take(self, value: dict[str, Any]) -> None:
        """Add one event."""
        self.first = self.first or value
        self.sequence = value.get("sequence_number", self.sequence)
        pieces, calls = len(self.words) + len(self.thoughts), self._call_pieces()
        if "choices" in value:
            for choice in value["choices"]:
                self._take_choice(choice)
        elif str(value.get("type", "")).startswith("response."):
            self._take_item(value)
        elif "type" in value:
            self._take_block(value)
        elif "content" in value:
            self._take_native(value)
        self.tokens += len(self.words) + len(self.thoughts) > pieces
        self.call_tokens += self._call_pieces() > calls

    def whole(self) -> Said:
        """The same with its pieces put together; pieces are not joined one by one, which would take ever longer."""
        self.content, self.reasoning = "".join(self.words), "".join(self.thoughts)
        for call in self.calls:
            call.arguments = "".join(call.pieces)
        return self

    def _call_pieces(self) -> int:
        return sum(1 + len(call.pieces) for call in self.calls)

    def _say(self, text: str | None) -> None:
        if text:
            self.words.append(text)

    def _think(self, text: str | None) -> None:
        if text:
            self.thoughts.append(text)

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        self._say(choice.get("text"))
        delta = choice.get("delta") or {}
        self._say(delta.get("content"))
        self._think(delta.get("reasoning_content"))
        for part in delta.get("tool_calls", ()):
            function, index = part.get("function") or {}, int(part.get("index", 0))
            while len(self.calls) <= index:
                self.calls.append(Call())
            self.calls[index].name += function.get("name") or ""
            if function.get("arguments"):
                self.calls[index].pieces.append(function["arguments"])
        self.finished |= bool(choice.get("finish_reason"))

    def _take_block(self, value: Mapping[str, Any]) -> None:
        """An event of Anthropic's."""
        match value["type"]:
            case "content_block_start":
                block = value["content_block"]
                self.blocks[value["index"]] = block["type"]
                if block["type"] == "tool_use":
                    self.places[value["index"]] = len(self.calls)
                    self.calls.append(Call(name=block["name"]))
            case "content_block_delta":
                delta = value["delta"]
                self._say(delta.get("text"))
                self._think(delta.get("thinking"))
                if "partial_json" in delta:
                    self.calls[self.places[value["index"]]].pieces.append(delta["partial_json"])
            case "message_delta":
                self.finished = True
            case _:
                pass
        self._take_once(value, self.blocks.get(value.get("index", -1)) == "thinking")

    def _take_item(self, value: Mapping[str, Any]) -> None:
        """An event of a response."""
        match value["type"]:
            case "response.output_item.added":
                item = value["item"]
                if item["type"] == "function_call":
                    self.places[item["id"]] = len(self.calls)
                    self.calls.append(Call(name=item["name"], id=item["id"], call_id=item["call_id"]))
                else:
                    self.items[item["type"]] = item["id"]
            case "response.reasoning_text.delta":
                self._think(value["delta"])
            case "response.output_text.delta":
                self._say(value["delta"])
            case "response.function_call_arguments.delta":
                self.calls[self.places[value["item_id"]]].pieces.append(value["delta"])
            case "response.output_text.done":
                self.ending = True
            case _:
                pass
        self._take_once(value, (value.get("item") or {}).get("type") == "reasoning")

    def _take_once(self, value: Mapping[str, Any], thought: bool) -> None:
        if (key := event_key(value)) is None:
            return
        self.seen.add(key)
        if value["type"] in CLOSING:
            self.thought_out |= thought
            self.ending |= not thought

    def _take_native(self, value: Mapping[str, Any]) -> None:
        """An event of llama-server's own completion. It says how many tokens there were: none may be missing."""
        self._say(value["content"])
        self.finished |= value.get("stop") is True
        if self.token_ids is None or not value["content"]:
            self.token_ids = None if value.get("tokens") else self.token_ids  # a token whose text is still held back
            return
        self.token_ids += value.get("tokens") or ()
        if len(self.token_ids) != value.get("tokens_predicted"):
            self.token_ids = None


def event_key(value: Mapping[str, Any], index: object = None) -> str | None:
    """The name of an event that comes once in an answer, or None. `index` stands for that of its block or item."""
    kind = value["type"]
    if kind.endswith(".delta") or kind in ("content_block_start", "response.output_item.added"):
        return None
    if kind == "content_block_delta":
        delta = value["delta"]["type"]
        return delta if delta == "signature_delta" else None
    if index is None:
        index = value.get("index", value.get("item_id", (value.get("item") or {}).get("id", "")))
    return f"{kind}:{index}"


def said_in(kept: Iterable[bytes]) -> Said:
    """What the events in `kept` have said."""
    said = Said()
    for blob in kept:
        for value in sse.events(blob):
            if isinstance(value, dict) and "error" not in value:
                said.take(value)
    if not said.words:
        said.token_ids = None
    return said.whole()
