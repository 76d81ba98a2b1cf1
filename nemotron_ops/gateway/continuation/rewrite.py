"""Rewrites the events of a continuation into the rest of the stream that the client is reading. Pure.

Ids, names and indexes become those of the first stream, text that the client has is dropped, and usage counts the whole
answer. There is one class for each stream format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.overlap import Overlap
from nemotron_ops.gateway.continuation.transcript import Transcript, event_key
from nemotron_ops.gateway.streams import sse


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How to continue: the body to send, and the text in its answer that the client already has."""

    body: bytes
    transcript: Transcript
    skip_reasoning: str = ""
    skip_content: str = ""
    prior_tokens: int = 0  # tokens of the prefill
    replays: bool = False  # nothing is given: the whole answer is made again
    closed: bool = False  # no reasoning can follow
    tail: str | None = None  # calls are in the prefill, except this end of the last one


def rewriter(api: Api, plan: Continuation) -> Rewriter:
    """The rewriter for the continuation `plan`."""
    match api:
        case Api.MESSAGES:
            return MessagesRewriter(plan)
        case _:
            return Rewriter(plan)


class Rewriter:
    """For chats and completions, OpenAI's and llama-server's own."""

    def __init__(self, plan: Continuation) -> None:
        self.transcript = plan.transcript
        self.prior = plan.prior_tokens
        self.overlap = Overlap(
            plan.transcript, skip_reasoning=plan.skip_reasoning, skip_content=plan.skip_content, closed=plan.closed,
            tail=plan.tail,
        )  # fmt: skip

    def __call__(self, blob: bytes) -> bytes:
        """The events of `blob` that the client does not have. Raises Diverged."""
        out = []
        for value in sse.events(blob):
            if not isinstance(value, dict):
                continue
            if "error" in value or self.event(value):
                out.append(sse.event(value))
        return b"".join(out) + (sse.DONE if blob.endswith(sse.DONE) else b"")

    def event(self, value: dict[str, Any]) -> bool:
        """Rewrite one event in place; returns whether it is forwarded. Raises Diverged."""
        for name in ("id", "created"):
            if name in self.transcript.first and name in value:
                value[name] = self.transcript.first[name]
        self.count(value, "tokens_evaluated", "tokens_predicted")
        self.count(value.get("usage"), "prompt_tokens", "completion_tokens")
        if "choices" in value:
            left = [self._choice(choice) for choice in value["choices"]]
            return not left or any(left)
        if "content" in value:
            value["content"] = self.overlap.take_content(value["content"] or "")
            if value.get("stop"):
                self._restore_request(value)
            return bool(value["content"] or value.get("stop"))
        return True

    def _restore_request(self, value: dict[str, Any]) -> None:
        """llama-server's own completion ends with the request: restore the original one."""
        self.overlap.end()
        if self.prior and isinstance(value.get("prompt"), str):
            value["prompt"] = value["prompt"].removesuffix(self.transcript.content)
            settings = value.get("generation_settings") or {}
            for name in ("n_predict", "max_tokens"):
                if settings.get(name, 0) > 0:
                    settings[name] += self.prior

    def count(self, usage: Any, prompt: str, answer: str) -> None:
        """Count the prefill as completion tokens, not as prompt tokens."""
        if isinstance(usage, dict) and answer in usage:
            usage[answer] += self.prior
            if prompt in usage:
                usage[prompt] = max(0, usage[prompt] - self.prior)

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Drop from a choice what the client has; returns whether anything is left."""
        finish = choice.get("finish_reason")
        if "text" in choice:
            choice["text"] = self.overlap.take_content(choice["text"] or "")
        delta = choice.get("delta") or {}
        delta.pop("role", None)
        if delta.get("reasoning_content"):
            delta["reasoning_content"] = self.overlap.take_reasoning(delta["reasoning_content"])
        if delta.get("content"):
            delta["content"] = self.overlap.take_content(delta["content"])
        if "tool_calls" in delta:
            delta["tool_calls"] = [call for call in delta["tool_calls"] if self._call(call)]
        if finish:
            self.overlap.end(called=finish == "tool_calls")
        if "delta" in choice:
            choice["delta"] = {k: v for k, v in delta.items() if v}
        return bool(finish or choice.get("text") or choice.get("delta"))

    def _call(self, call: dict[str, Any]) -> bool:
        index, function = int(call.get("index", 0)), call.get("function") or {}
        new = "name" in function and self.overlap.take_name(index, function["name"])
        if "name" in function and not new:
            for place, name in ((function, "name"), (call, "id"), (call, "type")):
                place.pop(name, None)
        if "arguments" in function:
            function["arguments"] = self.overlap.take_arguments(index, function["arguments"])
        return new or bool(function.get("arguments"))


class MessagesRewriter(Rewriter):
    """For Anthropic's messages: blocks that are open at the client stay open, under their indexes."""

    def __init__(self, plan: Continuation) -> None:
        super().__init__(plan)
        self._places = {kind: index for index, kind in plan.transcript.blocks.items() if kind != "tool_use"}
        self._calls = sorted(
            plan.transcript.call_index, key=lambda index: plan.transcript.call_index[index]
        )  # block index of each call
        self._begun = 0  # calls
        self._index: dict[int, int] = {}  # the continuation's index -> the client's
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
            self.overlap.end(called=value["delta"].get("stop_reason") == "tool_use")
        self.count(value.get("usage"), "input_tokens", "output_tokens")
        return event_key(value) not in self.transcript.seen

    def _start(self, value: dict[str, Any]) -> bool:
        new, block = value["index"], value["content_block"]
        if block["type"] == "tool_use":
            call, self._begun = self._begun, self._begun + 1
            self._call_of[new] = call
            known = self._calls[call] if not self.overlap.take_name(call, block["name"]) else None
        else:
            known = self._places.get(block["type"])
        self._index[new] = value["index"] = known if isinstance(known, int) else self._next_index()
        return known is None

    def _next_index(self) -> int:
        return max([-1, *self.transcript.blocks, *self._index.values()]) + 1

    def _delta(self, delta: dict[str, Any], call: int) -> bool:
        if "text" in delta:
            delta["text"] = self.overlap.take_content(delta["text"])
        if "thinking" in delta:
            delta["thinking"] = self.overlap.take_reasoning(delta["thinking"])
        if "partial_json" in delta:
            delta["partial_json"] = self.overlap.take_arguments(call, delta["partial_json"])
        return "signature" in delta or any(v for k, v in delta.items() if k != "type")
