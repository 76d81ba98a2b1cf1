"""The events of a continuation as the rest of the stream that the client has begun to read. Pure.

Ids, names and places are those that the client knows; what it has seen is left out; numbers are those of the whole
answer. One class per way of writing a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.overlap import Unseen
from nemotron_ops.gateway.continuation.transcript import Said, event_key
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.relay import Diverged


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How to go on: the body to send, and what will be repeated of what the client has seen."""

    body: bytes
    said: Said
    skip_reasoning: str = ""
    skip_content: str = ""
    prior_tokens: int = 0  # of what is given as the beginning of the answer
    anew: bool = False  # nothing is given: all is said again
    closed: bool = False  # no thoughts can follow
    tail: str | None = None  # calls are given, but for this end of the last one


def rewriter(api: Api, plan: Continuation) -> Rewriter:
    """What turns the events of the continuation `plan` into the rest of the first stream."""
    match api:
        case Api.MESSAGES:
            return MessagesRewriter(plan)
        case Api.RESPONSES:
            return ResponsesRewriter(plan)
        case _:
            return Rewriter(plan)


class Rewriter:
    """Chats and completions, OpenAI's and llama-server's own."""

    def __init__(self, plan: Continuation) -> None:
        self.said = plan.said
        self.prior = plan.prior_tokens
        self.unseen = Unseen(
            plan.said, skip_reasoning=plan.skip_reasoning, skip_content=plan.skip_content, closed=plan.closed,
            tail=plan.tail,
        )  # fmt: skip
        self.sequence = plan.said.sequence

    def __call__(self, blob: bytes) -> bytes:
        """The events of `blob` that the client has not seen. Raises Diverged."""
        out = []
        for value in sse.events(blob):
            if not isinstance(value, dict):
                continue
            if "error" in value:
                out.append(sse.event(value))
            elif self.event(value):
                if "sequence_number" in value:
                    self.sequence += 1
                    value["sequence_number"] = self.sequence
                out.append(sse.event(value))
        return b"".join(out) + (sse.DONE if blob.endswith(sse.DONE) else b"")

    def event(self, value: dict[str, Any]) -> bool:
        """Change one event; returns whether the client gets it. Raises Diverged."""
        for name in ("id", "created"):
            if name in self.said.first and name in value:
                value[name] = self.said.first[name]
        self.count(value, "tokens_evaluated", "tokens_predicted")
        self.count(value.get("usage"), "prompt_tokens", "completion_tokens")
        if "choices" in value:
            left = [self._choice(choice) for choice in value["choices"]]
            return not left or any(left)
        if "content" in value:
            value["content"] = self.unseen.text(value["content"] or "")
            if value.get("stop"):
                self._as_asked(value)
            return bool(value["content"] or value.get("stop"))
        return True

    def _as_asked(self, value: dict[str, Any]) -> None:
        """llama-server's own completion ends with the request: as it came, not as it was continued."""
        self.unseen.end()
        if self.prior and isinstance(value.get("prompt"), str):
            value["prompt"] = value["prompt"].removesuffix(self.said.content)
            settings = value.get("generation_settings") or {}
            for name in ("n_predict", "max_tokens"):
                if settings.get(name, 0) > 0:
                    settings[name] += self.prior

    def count(self, usage: Any, prompt: str, answer: str) -> None:
        """Numbers of the whole answer: what was given as its beginning was no prompt."""
        if isinstance(usage, dict) and answer in usage:
            usage[answer] += self.prior
            if prompt in usage:
                usage[prompt] = max(0, usage[prompt] - self.prior)

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Take what was seen out of a choice; returns whether something is left."""
        finish = choice.get("finish_reason")
        if "text" in choice:
            choice["text"] = self.unseen.text(choice["text"] or "")
        delta = choice.get("delta") or {}
        delta.pop("role", None)
        if delta.get("reasoning_content"):
            delta["reasoning_content"] = self.unseen.thought(delta["reasoning_content"])
        if delta.get("content"):
            delta["content"] = self.unseen.text(delta["content"])
        if "tool_calls" in delta:
            delta["tool_calls"] = [call for call in delta["tool_calls"] if self._call(call)]
        if finish:
            self.unseen.end(called=finish == "tool_calls")
        if "delta" in choice:
            choice["delta"] = {k: v for k, v in delta.items() if v}
        return bool(finish or choice.get("text") or choice.get("delta"))

    def _call(self, call: dict[str, Any]) -> bool:
        index, function = int(call.get("index", 0)), call.get("function") or {}
        new = "name" in function and self.unseen.name(index, function["name"])
        if "name" in function and not new:
            for place, name in ((function, "name"), (call, "id"), (call, "type")):
                place.pop(name, None)
        if "arguments" in function:
            function["arguments"] = self.unseen.arguments(index, function["arguments"])
        return new or bool(function.get("arguments"))


class MessagesRewriter(Rewriter):
    """Anthropic's: blocks that the client has open stay open, under their indexes."""

    def __init__(self, plan: Continuation) -> None:
        super().__init__(plan)
        self._places = {kind: index for index, kind in plan.said.blocks.items() if kind != "tool_use"}
        self._calls = sorted(plan.said.places, key=lambda index: plan.said.places[index])  # index of each call
        self._begun = 0  # calls
        self._index: dict[int, int] = {}  # the continuation's -> the client's
        self._call_of: dict[int, int] = {}

    def event(self, value: dict[str, Any]) -> bool:
        if value["type"] == "content_block_start":
            return self._start(value)
        if "index" in value:
            new = value["index"]
            value["index"] = self._index.get(new, new)
            if value["type"] == "content_block_delta" and not self._delta(value["delta"], self._call_of.get(new, 0)):
                return False
        if value["type"] == "message_delta":
            self.unseen.end(called=value["delta"].get("stop_reason") == "tool_use")
        self.count(value.get("usage"), "input_tokens", "output_tokens")
        return event_key(value) not in self.said.seen

    def _start(self, value: dict[str, Any]) -> bool:
        new, block = value["index"], value["content_block"]
        if block["type"] == "tool_use":
            call, self._begun = self._begun, self._begun + 1
            self._call_of[new] = call
            known = self._calls[call] if not self.unseen.name(call, block["name"]) else None
        else:
            known = self._places.get(block["type"])
        self._index[new] = value["index"] = known if isinstance(known, int) else self._next_index()
        return known is None

    def _next_index(self) -> int:
        return max([-1, *self.said.blocks, *self._index.values()]) + 1

    def _delta(self, delta: dict[str, Any], call: int) -> bool:
        if "text" in delta:
            delta["text"] = self.unseen.text(delta["text"])
        if "thinking" in delta:
            delta["thinking"] = self.unseen.thought(delta["thinking"])
        if "partial_json" in delta:
            delta["partial_json"] = self.unseen.arguments(call, delta["partial_json"])
        return "signature" in delta or any(v for k, v in delta.items() if k != "type")


class ResponsesRewriter(Rewriter):
    """OpenAI's responses: items keep their ids, and what is said whole at the end is what the client has got."""

    def __init__(self, plan: Continuation) -> None:
        super().__init__(plan)
        self._ids: dict[str, str] = {}  # the continuation's -> the client's
        self._call_of: dict[str, int] = {}  # the continuation's item -> which of the calls

    def event(self, value: dict[str, Any]) -> bool:
        kind = value["type"]
        if kind == "response.output_item.added":
            return self._added(value["item"])
        if "item_id" in value:
            call = self._call_of.get(value["item_id"], 0)
            value["item_id"] = self._known(value["item_id"], "message")
            if "delta" in value:
                value["delta"] = self._delta(kind, value["delta"], call)
                return bool(value["delta"])
        if kind == "response.output_text.done":
            value["text"] = self.unseen.content
        if "part" in value and kind.endswith(".done"):
            value["part"]["text"] = self.unseen.content
        if kind == "response.output_item.done":
            self._whole(value["item"])
        if isinstance(value.get("response"), dict):
            self._response(kind, value["response"])
        return event_key(value) not in self.said.seen

    def _known(self, item_id: str, kind: str) -> str:
        """The client's id of an item; one of which nothing new was said has not been added again."""
        return self._ids.get(item_id) or self.said.items.get(kind, item_id)

    def _added(self, item: dict[str, Any]) -> bool:
        if item["type"] == "function_call":
            call = len(self._call_of)
            self._call_of[item["id"]] = call
            known = "" if self.unseen.name(call, item["name"]) else self.said.calls[call].id
        else:
            known = self.said.items.get(item["type"], "")
        self._ids[item["id"]] = known or item["id"]
        return not known

    def _delta(self, kind: str, delta: str, call: int) -> str:
        match kind:
            case "response.reasoning_text.delta":
                return self.unseen.thought(delta)
            case "response.output_text.delta":
                return self.unseen.text(delta)
            case "response.function_call_arguments.delta":
                return self.unseen.arguments(call, delta)
            case _:
                return delta

    def _whole(self, item: dict[str, Any]) -> None:
        """An item as it is at the end."""
        if item["type"] == "function_call":
            call = self._call_of.get(item["id"], len(self.said.calls))
            if call < len(self.said.calls):
                item["id"], item["call_id"] = self.said.calls[call].id, self.said.calls[call].call_id
                if item.get("arguments") != self.unseen.calls[call]:
                    raise Diverged
            return
        item["id"] = self._known(item["id"], item["type"])
        text = {"reasoning": self.unseen.reasoning, "message": self.unseen.content}.get(item["type"])
        if text is not None and item.get("content"):
            item["content"][0]["text"] = text

    def _response(self, kind: str, response: dict[str, Any]) -> None:
        first = self.said.first.get("response") or {}
        response["id"] = first.get("id", response["id"])
        for item in response.get("output", ()):
            self._whole(item)
        self.count(response.get("usage"), "input_tokens", "output_tokens")
        if kind == "response.completed":
            self.unseen.end()
