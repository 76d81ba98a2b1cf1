"""Going on with a stream whose llama-server died. Pure.

What the client has seen is the beginning of an answer. Another llama-server is asked to go on from there:

    PREFILL   text so far is given as the beginning of the assistant's message (`continue_final_message`), or of the
              prompt: the model goes on where it was.
    REPLAY    where that would be wrong (a grammar starts at its beginning; an unfinished tool call cannot be given),
              the request is sent again, what comes must begin with what the client has seen, and only the rest is
              passed on. If it comes out differently, the stream ends in an error.

A tool call in progress after plain text is both: the text is given, the call is replayed. Not continued are streams of
several choices, with log probabilities, of the responses API, tool calls of the messages API, and what is longer than
what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nemotron_ops.gateway import sse
from nemotron_ops.gateway.fields import SPELLINGS
from nemotron_ops.gateway.fold import UNFOLDABLE
from nemotron_ops.gateway.routes import Api

GRAMMARS = frozenset({"grammar", "json_schema", "response_format"})
Fields = Mapping[str, msgspec.Raw]


class Diverged(Exception):
    """A replayed answer differs from what the client has seen."""


@dataclass(slots=True)
class Said:
    """What a client has seen of an answer."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)  # name, arguments
    blocks: dict[int, str] = field(default_factory=dict)  # Anthropic's: index -> type
    first: dict[str, Any] = field(default_factory=dict)  # the first event
    tokens: int = 0  # about: one per event with text
    finished: bool = False

    def take(self, value: dict[str, Any]) -> None:
        """Add one event of a chat or completion."""
        self.first = self.first or value
        before = len(self.content) + len(self.reasoning)
        self._take_block(value)
        if "content" in value:  # llama-server's own completion
            self.content += value["content"] or ""
            self.finished |= value.get("stop") is True
        for choice in value.get("choices", ()):
            self.content += choice.get("text") or ""
            delta = choice.get("delta") or {}
            self.content += delta.get("content") or ""
            self.reasoning += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                self._take_call(call)
            self.finished |= bool(choice.get("finish_reason"))
        self.tokens += len(self.content) + len(self.reasoning) > before

    def _take_block(self, value: dict[str, Any]) -> None:
        match value.get("type"):
            case "content_block_start":
                self.blocks[value["index"]] = value["content_block"]["type"]
            case "content_block_delta":
                self.content += value["delta"].get("text") or ""
                self.reasoning += value["delta"].get("thinking") or ""
            case "message_delta":
                self.finished = True
            case _:
                pass

    def _take_call(self, call: Mapping[str, Any]) -> None:
        index = int(call.get("index", 0))
        while len(self.calls) <= index:
            self.calls.append({"name": "", "arguments": ""})
        function = call.get("function") or {}
        self.calls[index]["name"] += function.get("name") or ""
        self.calls[index]["arguments"] += function.get("arguments") or ""


@dataclass(slots=True)
class Continuation:
    """How to go on: the body to send, and what of the new events the client has seen already."""

    body: bytes
    said: Said
    skip_reasoning: str
    skip_content: str
    prior_tokens: int


def said_in(kept: list[bytes]) -> Said:
    """What the events in `kept` have said."""
    said = Said()
    for blob in kept:
        for value in sse.events(blob):
            if isinstance(value, dict) and "error" not in value:
                said.take(value)
    return said


def can_continue(api: Api, fields: Fields) -> bool:
    """Whether streams of such a request can be continued at all."""
    if api not in (Api.CHAT, Api.COMPLETION, Api.NATIVE, Api.MESSAGES) or UNFOLDABLE & fields.keys():
        return False
    if bytes(fields.get("n", b"1")) not in (b"1", b"null"):
        return False
    return api in (Api.CHAT, Api.MESSAGES) or bytes(fields.get("prompt", b""))[:1] == b'"'


def continuation(api: Api, fields: Fields, said: Said) -> Continuation | None:
    """How to go on after `said`, or None if that cannot be done rightly."""
    if not can_continue(api, fields):
        return None
    changed = dict(fields)
    if api is Api.MESSAGES and (said.finished or "tool_use" in said.blocks.values()):
        return None
    if GRAMMARS & fields.keys():
        return _replay(changed, said)
    _lower_limit(api, changed, said.tokens)
    if api in (Api.COMPLETION, Api.NATIVE):
        prompt = msgspec.json.decode(fields["prompt"], type=str)
        changed["prompt"] = _raw(prompt + said.content)
        return Continuation(msgspec.json.encode(changed), said, "", "", said.tokens)
    messages = _messages_with(api, fields, said)
    if messages is None:
        return _replay(dict(fields), said)
    changed["messages"] = messages
    if api is Api.MESSAGES:  # here llama-server repeats what it is given (tools/server/server-schema.cpp:327, v0.5.0)
        return Continuation(msgspec.json.encode(changed), said, said.reasoning, said.content, said.tokens)
    changed["add_generation_prompt"] = _raw(False)
    answering = bool(said.content or said.calls)
    changed["continue_final_message"] = _raw("content" if answering else "reasoning_content")
    return Continuation(msgspec.json.encode(changed), said, "", "", said.tokens)


def _replay(fields: dict[str, msgspec.Raw], said: Said) -> Continuation:
    return Continuation(msgspec.json.encode(fields), said, said.reasoning, said.content, 0)


def _messages_with(api: Api, fields: Fields, said: Said) -> msgspec.Raw | None:
    """The messages with what was said at their end; None where nothing was, or the end is already an answer's."""
    if not (said.reasoning or said.content or said.calls):
        return None
    try:
        messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
        last = msgspec.json.decode(messages[-1]) if messages else {}
    except (msgspec.DecodeError, KeyError):
        return None
    if not isinstance(last, dict) or last.get("role") == "assistant":
        return None
    if api is Api.MESSAGES:
        blocks = [{"type": "thinking", "thinking": said.reasoning}] if said.reasoning else []
        texts = [{"type": "text", "text": said.content}] if said.content else []
        return _raw([*messages, {"role": "assistant", "content": [*blocks, *texts]}])
    message: dict[str, Any] = {"role": "assistant", "content": said.content}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    return _raw([*messages, message])


def _lower_limit(api: Api, fields: dict[str, msgspec.Raw], used: int) -> None:
    """An answer's limit of tokens counts what was said already."""
    for name in SPELLINGS[api]:
        try:
            limit = msgspec.json.decode(fields[name]) if name in fields else None
        except msgspec.DecodeError:
            continue
        if isinstance(limit, int) and limit > 0:
            fields[name] = _raw(max(1, limit - used))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Rewriter:
    """Turns the events of a continuation into the rest of the first stream."""

    def __init__(self, plan: Continuation) -> None:
        self.plan = plan
        self._reasoning = plan.skip_reasoning
        self._content = plan.skip_content
        self._calls = [dict(call) for call in plan.said.calls]
        self._named: set[int] = set()

    def __call__(self, blob: bytes) -> bytes:
        """The events of `blob` that the client has not seen. Raises Diverged."""
        out = []
        for value in sse.events(blob):
            if not isinstance(value, dict):
                continue
            if "error" in value:
                out.append(value)
            elif (kept := self._event(value)) is not None:
                out.append(kept)
        text = b"".join(map(_event_text, out))
        return text + (sse.DONE if blob.endswith(sse.DONE) else b"")

    def _event(self, value: dict[str, Any]) -> dict[str, Any] | None:
        first = self.plan.said.first
        for name in ("id", "created"):
            if name in first and name in value:
                value[name] = first[name]
        self._count(value)
        if "type" in value:
            return value if self._block(value) else None
        if "content" in value and "choices" not in value:
            value["content"], self._content = _unseen(value["content"] or "", self._content)
            return value if value["content"] or value.get("stop") else None
        choices = value.get("choices")
        if not choices:
            return value
        left = [self._choice(choice) for choice in choices]
        return value if any(left) else None

    def _block(self, value: dict[str, Any]) -> bool:
        """Anthropic's events: what the client has open stays open."""
        match value["type"]:
            case "message_start":
                return not self.plan.said.first
            case "content_block_start":
                return value["index"] not in self.plan.said.blocks
            case "content_block_delta":
                delta = value["delta"]
                if "text" in delta:
                    delta["text"], self._content = _unseen(delta["text"], self._content)
                if "thinking" in delta:
                    delta["thinking"], self._reasoning = _unseen(delta["thinking"], self._reasoning)
                    if self.plan.said.content or not delta["thinking"].strip():
                        return False  # the line end with which llama-server closes a given thought
                return any(v for k, v in delta.items() if k != "type") or "signature" in delta
            case "message_delta" if self._content or self._reasoning:
                raise Diverged
            case _:
                return True

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Take what was seen out of a choice; returns whether something is left."""
        finish = bool(choice.get("finish_reason"))
        if "text" in choice:
            choice["text"], self._content = _unseen(choice["text"] or "", self._content)
            return bool(choice["text"]) or finish
        delta = choice.get("delta") or {}
        delta.pop("role", None)
        if delta.get("content", "") is None:
            del delta["content"]
        if "content" in delta:
            delta["content"], self._content = _unseen(delta["content"], self._content)
        if "reasoning_content" in delta:
            delta["reasoning_content"], self._reasoning = _unseen(delta["reasoning_content"], self._reasoning)
        calls = [call for call in delta.get("tool_calls", ()) if self._call(call)]
        if "tool_calls" in delta:
            delta["tool_calls"] = calls
        left = {k: v for k, v in delta.items() if v}
        choice["delta"] = left
        if finish and (self._content or self._reasoning):
            raise Diverged
        return bool(left) or finish

    def _call(self, call: dict[str, Any]) -> bool:
        index = int(call.get("index", 0))
        if index >= len(self._calls):
            return True
        seen, function = self._calls[index], call.get("function") or {}
        if name := function.pop("name", None):
            if name != seen["name"]:
                raise Diverged
            call.pop("id", None)
            call.pop("type", None)
        arguments, seen["arguments"] = _unseen(function.get("arguments") or "", seen["arguments"])
        function["arguments"] = arguments
        return bool(arguments)

    def _count(self, value: dict[str, Any]) -> None:
        """Numbers of the whole answer: what was given as its beginning was no prompt."""
        prior = self.plan.prior_tokens
        usage = value.get("usage")
        if isinstance(usage, dict) and "completion_tokens" in usage:
            usage["completion_tokens"] += prior
            usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - prior)
        if isinstance(usage, dict) and "output_tokens" in usage and value.get("type") == "message_delta":
            usage["output_tokens"] += prior
        if "tokens_predicted" in value:
            value["tokens_predicted"] += prior
            value["tokens_evaluated"] = max(0, value.get("tokens_evaluated", 0) - prior)


def _event_text(value: dict[str, Any]) -> bytes:
    name = b"event: " + value["type"].encode() + b"\n" if "type" in value else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def _unseen(text: str, seen: str) -> tuple[str, str]:
    """What of `text` comes after `seen`, and what of `seen` is still to come. Raises Diverged if they differ."""
    if not seen:
        return text, ""
    if len(text) <= len(seen):
        if not seen.startswith(text):
            raise Diverged
        return "", seen[len(text) :]
    if not text.startswith(seen):
        raise Diverged
    return text[len(seen) :], ""
