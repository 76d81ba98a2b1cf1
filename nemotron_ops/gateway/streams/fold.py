"""Folds a stream of events into the whole answer that the client asked for. Pure.

llama-server is always asked to stream: for a whole answer it notices a disconnect only after a second without results
for any request (tools/server/server-queue.cpp:450, v0.5.0), so a busy server would compute abandoned answers to their
end. The folded answer has llama-server's own fields in their order.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.streams import sse

# With these fields in a request, the events don't add up to the whole answer.
UNFOLDABLE = frozenset({"logprobs", "top_logprobs", "n_probs", "response_fields", "echo", "best_of", "return_progress"})


class Fold(Protocol):
    """Collects events; `result` is the whole answer, or None if they are incomplete."""

    def send(self, data: bytes, *, last: bool = False) -> None: ...
    def result(self) -> dict[str, Any] | None: ...


def fold_for(api: Api, fields: dict[str, msgspec.Raw]) -> Fold | None:
    """A Fold for a request of `api`, or None if its answer cannot be folded and has to be requested whole."""
    if UNFOLDABLE & fields.keys():
        return None
    if "continue_final_message" in fields and bytes(fields["continue_final_message"]) not in (b"false", b"null"):
        return None  # a stream leaves out the beginning that the client gave
    if "grammar" in fields and api is Api.CHAT:
        return None  # a stream leaves out an answer that is all white space, which a grammar can demand
    one = bytes(fields.get("n", b"1")) in (b"1", b"null")
    match api:
        case Api.CHAT:
            return ChatFold() if one else SeveralFold(ChatFold)
        case Api.COMPLETION:
            return CompletionFold() if one and _is_text(fields.get("prompt")) else SeveralFold(CompletionFold)
        case _ if not one:
            return None
        case Api.MESSAGES:
            return MessagesFold()
        case Api.NATIVE:
            return (
                NativeFold(tokens=bytes(fields.get("return_tokens", b"")) == b"true")
                if _is_text(fields.get("prompt"))
                else None
            )
        case Api.OTHER | Api.RESPONSES | Api.OLLAMA:  # engines are asked for chats instead
            return None


def _is_text(raw: msgspec.Raw | None) -> bool:
    """Whether a prompt is one text; only the answer to a single prompt is folded."""
    return raw is not None and bytes(raw)[:1] == b'"'


class _Base:
    """Decodes the events for a fold."""

    def send(self, data: bytes, *, last: bool = False) -> None:
        for value in sse.events(data):
            if isinstance(value, dict):
                self.take(value)

    def take(self, value: dict[str, Any]) -> None:
        raise NotImplementedError


class ChatFold(_Base):
    """`chat.completion` from `chat.completion.chunk`."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._last: dict[str, Any] = {}
        self._usage: Any = None
        self._timings: Any = None

    def take(self, value: dict[str, Any]) -> None:
        self._last = value
        self._usage = value.get("usage", self._usage)
        self._timings = value.get("timings", self._timings)
        for choice in value.get("choices", ()):
            delta = choice.get("delta", {})
            if text := delta.get("content"):
                self._content.append(text)
            if text := delta.get("reasoning_content"):
                self._reasoning.append(text)
            for call in delta.get("tool_calls", ()):
                self._take_call(call)
            self._finish = choice.get("finish_reason") or self._finish

    def _take_call(self, call: dict[str, Any]) -> None:
        index = int(call.get("index", 0))
        while len(self._calls) <= index:
            self._calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        mine, function = self._calls[index], call.get("function", {})
        mine["function"]["name"] += function.get("name") or ""
        mine["function"]["arguments"] += function.get("arguments") or ""
        if call.get("id"):
            mine["id"] = call["id"]

    def result(self) -> dict[str, Any] | None:
        if self._finish is None:
            return None
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._content)}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        return _without_none(
            {
                "choices": [{"finish_reason": self._finish, "index": 0, "message": message}],
                "created": self._last.get("created"),
                "model": self._last.get("model"),
                "system_fingerprint": self._last.get("system_fingerprint"),
                "object": "chat.completion",
                "usage": self._usage,
                "id": self._last.get("id"),
                "timings": self._timings,
            }
        )


class CompletionFold(_Base):
    """`text_completion` from events of the same shape."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._last: dict[str, Any] | None = None

    def take(self, value: dict[str, Any]) -> None:
        for choice in value.get("choices", ()):
            self._text.append(choice.get("text") or "")
            if choice.get("finish_reason"):
                self._last = value

    def result(self) -> dict[str, Any] | None:
        if self._last is None:
            return None
        choice = {**self._last["choices"][0], "text": "".join(self._text)}
        return {**self._last, "choices": [choice]}


class SeveralFold(_Base):
    """An answer with several choices, each from its own events. Its usage is that of all of them.

    llama-server's own whole answer has the usage of its first choice, of whatever prompt.
    """

    def __init__(self, kind: type[ChatFold] | type[CompletionFold]) -> None:
        self._kind = kind
        self._folds: dict[int, ChatFold | CompletionFold] = {}
        self._usages: list[dict[str, Any]] = []
        self._timings: Any = None  # of the first choice, as in llama-server's answer

    def take(self, value: dict[str, Any]) -> None:
        if isinstance(usage := value.get("usage"), dict):
            self._usages.append(usage)
            self._timings = self._timings or value.get("timings")
        if choices := value.get("choices"):
            index = choices[0].get("index", 0)
            if index not in self._folds:
                self._folds[index] = self._kind()
            self._folds[index].take(value)

    def result(self) -> dict[str, Any] | None:
        found = [(index, self._folds[index].result()) for index in sorted(self._folds)]
        choices = [{**answer["choices"][0], "index": index} for index, answer in found if answer is not None]
        if not choices or len(choices) < len(found):
            return None
        names = ("completion_tokens", "prompt_tokens", "total_tokens")
        usage: dict[str, Any] = {name: sum(usage.get(name, 0) for usage in self._usages) for name in names}
        details = [usage["prompt_tokens_details"] for usage in self._usages if "prompt_tokens_details" in usage]
        if details:
            usage["prompt_tokens_details"] = {"cached_tokens": sum(d.get("cached_tokens", 0) for d in details)}
        answer = {**(found[0][1] or {}), "choices": choices, "usage": usage, "timings": self._timings}
        return _without_none(answer)


class NativeFold(_Base):
    """llama-server's own completion: the last event has everything but the text."""

    def __init__(self, *, tokens: bool) -> None:
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._want_tokens = tokens
        self._last: dict[str, Any] | None = None

    def take(self, value: dict[str, Any]) -> None:
        self._text.append(value.get("content") or "")
        self._tokens += value.get("tokens") or []
        if value.get("stop") is True:
            self._last = value

    def result(self) -> dict[str, Any] | None:
        if self._last is None:
            return None
        last = {**self._last, "content": "".join(self._text), "tokens": self._tokens if self._want_tokens else []}
        if isinstance(settings := last.get("generation_settings"), dict):
            last["generation_settings"] = {**settings, "stream": False}
        return last


class MessagesFold(_Base):
    """Anthropic's `message` from its events."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, list[str]] = {}
        self._ended = False

    def take(self, value: dict[str, Any]) -> None:
        match value.get("type"):
            case "message_start":
                self._message = value["message"]
            case "content_block_start":
                self._blocks.setdefault(value["index"], dict(value["content_block"]))
            case "content_block_delta":
                self._delta(value["index"], value["delta"])
            case "message_delta" if self._message is not None:
                self._message.update(value["delta"])
                self._message["usage"] = {**self._message.get("usage", {}), **value.get("usage", {})}
            case "message_stop":
                self._ended = True
            case _:
                pass

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.setdefault(index, {"type": "text", "text": ""})
        match delta.get("type"):
            case "text_delta":
                block["text"] += delta["text"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                self._json.setdefault(index, []).append(delta["partial_json"])
            case _:
                pass

    def result(self) -> dict[str, Any] | None:
        if self._message is None or not self._ended:
            return None
        blocks = []
        for index in sorted(self._blocks):
            block = self._blocks[index]
            if block.get("type") == "tool_use":
                block["input"] = _object("".join(self._json.get(index, ())))
            blocks.append(block)
        return {**self._message, "content": blocks}


def _object(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if v is not None}
