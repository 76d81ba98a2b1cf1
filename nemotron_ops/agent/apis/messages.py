"""Anthropic's messages API for the loop: bodies of turns, blocks of tools, citations, `pause_turn`. Pure.

Blocks of all turns are those of one message. A budget that ends is `pause_turn`: the client sends the message back, and
the next answer goes on, first with the calls that were not run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemotron_ops.agent.apis.citing import Marks
from nemotron_ops.agent.apis.face import History, Turn, TurnFailedError
from nemotron_ops.agent.apis.messages_blocks import result_block, use_block
from nemotron_ops.agent.apis.messages_history import read_messages
from nemotron_ops.agent.loop import Said
from nemotron_ops.agent.tools.kinds import hosted
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool
from nemotron_ops.agent.tools.web import Web
from nemotron_ops.web.citations import Citation, messages_citation

Block = dict[str, Any]
COUNTED = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
CUT = frozenset({"max_tokens", "model_context_window_exceeded"})
PAUSE = "pause_turn"


def checked(body: bytes) -> dict[str, Any]:
    """The request. Raises InvalidError for fields that hosted tools cannot honour."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidError(f"the body is no JSON: {exc}", "invalid_json") from exc
    if not isinstance(value, dict) or not isinstance(value.get("tools"), list):
        raise InvalidError("tools: expected a list")
    if not isinstance(value.get("messages"), list):
        raise InvalidError("messages: expected a list")
    if value.get("container"):
        raise InvalidError("container: a sandbox ends with its answer; leave it out")
    return value


class MessagesFace:
    """One request to `/v1/messages`."""

    name, path = "messages", "/messages"
    most_calls = 0

    def __init__(self, body: bytes) -> None:
        self.asked = checked(body)
        self.stream = self.asked.get("stream") is True
        self._tools: dict[str, Tool] = {}
        self._web: Web | None = None
        self._first = read_messages(self.asked["messages"])
        self._turns: list[dict[str, Any]] = []  # messages of this answer's turns, for the next one
        self._message: dict[str, Any] = {}  # the first turn's message: its id
        self._content: list[Block] = []
        self._usage: dict[str, int] = {}
        self._stop: dict[str, Any] = {}  # the turn's last words: stop_reason, stop_sequence
        self._ended = False
        self._blocks: dict[int, Block] = {}  # of the turn, by its own index
        self._json: dict[int, str] = {}
        self._places: dict[int, int] = {}  # of blocks that the client sees: index in the turn -> in the message
        self._marks: dict[int, Marks] = {}
        self._held = b""  # of calls that ran before the first turn

    def asked_for(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(f"tools[{n}]", tool) for n, tool in enumerate(self.asked["tools"]) if hosted(self.name, tool)]

    def offer(self, tools: Sequence[Tool], web: Web) -> History:
        own = {t.get("name") for t in self.asked["tools"] if isinstance(t, dict) and not hosted(self.name, t)}
        for tool in tools:
            if tool.name in own:
                raise InvalidError(f"tools: a function cannot be named {tool.name!r} beside the hosted tool")
        self._tools = {tool.name: tool for tool in tools}
        self._web = web
        web.sources.update(self._first.sources)
        return self._first.history

    def turn_body(self) -> dict[str, Any]:
        self._blocks, self._json, self._places, self._marks, self._ended = {}, {}, {}, {}, False
        body = {k: v for k, v in self.asked.items() if k not in ("container", "mcp_servers")}
        body |= {"messages": [*self._first.messages, *self._turns], "stream": True}
        body["tools"] = [t for t in self.asked["tools"] if not hosted(self.name, t)]
        body["tools"] += [
            {"name": t.name, "description": t.description, "input_schema": dict(t.parameters)}
            for t in self._tools.values()
        ]
        choice = body.get("tool_choice")
        if self._turns and isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
            body["tool_choice"] = {"type": "auto"}  # a call was forced once; forced again, the loop would not end
        return body

    def passed(self, event: Mapping[str, Any]) -> bytes:
        match event.get("type"):
            case "message_start":
                return self._start(event["message"])
            case "content_block_start":
                return self._block_start(int(event["index"]), dict(event["content_block"]))
            case "content_block_delta":
                return self._delta(int(event["index"]), event["delta"])
            case "content_block_stop":
                return self._block_stop(int(event["index"]))
            case "message_delta":
                self._stop = dict(event["delta"])
                self._count(event.get("usage"))
                return b""
            case "message_stop":
                self._ended = True
                return b""
            case "error":
                raise TurnFailedError(event.get("error") or event)
            case kind:
                return made(str(kind), **{k: v for k, v in event.items() if k != "type"})

    def _start(self, message: Mapping[str, Any]) -> bytes:
        usage = message.get("usage") or {}
        self._count({k: v for k, v in usage.items() if k != "output_tokens"})
        if self._message:
            return b""
        self._message = {**message, "content": []}
        held, self._held = self._held, b""
        return made("message_start", message=self._message) + held

    def _block_start(self, index: int, block: Block) -> bytes:
        self._blocks[index] = block
        self._json[index] = ""
        if block.get("type") == "tool_use" and block.get("name") in self._tools:
            return b""
        place = self._places[index] = len(self._content)
        self._content.append(block)
        return made("content_block_start", index=place, content_block=dict(block))

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        block, kind = self._blocks[index], str(delta.get("type"))
        if kind == "input_json_delta":
            self._json[index] += str(delta.get("partial_json") or "")
        elif kind in GROWS:
            block[GROWS[kind]] = str(block.get(GROWS[kind]) or "") + str(delta.get(GROWS[kind]) or "")
        if index not in self._places:
            return b""
        place = self._places[index]
        data = made("content_block_delta", index=place, delta=delta)
        if kind == "text_delta" and self._web is not None:
            marks = self._marks.setdefault(index, Marks(self._web.sources))
            data += self._cite(index, marks.add(str(delta.get("text") or "")))
        return data

    def _block_stop(self, index: int) -> bytes:
        block = self._blocks[index]
        if block.get("type") == "tool_use":
            block["input"] = Call(id="", name="", arguments=self._json[index]).given
        if index not in self._places:
            return b""
        data = self._cite(index, self._marks.pop(index).end()) if index in self._marks else b""
        return data + made("content_block_stop", index=self._places.pop(index))

    def _cite(self, index: int, new: list[Citation]) -> bytes:
        block = self._blocks[index]
        for it in new:
            block["citations"] = [*(block.get("citations") or ()), messages_citation(it)]
        deltas = ({"type": "citations_delta", "citation": messages_citation(it)} for it in new)
        return b"".join(made("content_block_delta", index=self._places[index], delta=delta) for delta in deltas)

    def turn_said(self) -> Turn | None:
        if not self._ended:
            return None
        blocks = [b for b in self._blocks.values() if b.get("type") != "text" or b.get("text")]
        said = [{k: v for k, v in b.items() if k != "citations"} for b in blocks]
        reason = str(self._stop.get("stop_reason") or "")
        uses = [b for b in blocks if b.get("type") == "tool_use"]
        ours = [b for b in uses if b.get("name") in self._tools]
        cut = reason if reason in CUT else ""
        if said and not cut:
            self._turns.append({"role": "assistant", "content": said})
        calls = tuple(
            Call(id=str(b["id"]), name=str(b["name"]), arguments=json.dumps(b["input"], ensure_ascii=False))
            for b in ours
        )
        return Turn(calls=calls, said=Said(hosted=len(ours), own=len(uses) - len(ours), cut=cut))

    def began(self, call: Call, tool: Tool) -> bytes:
        block, place = use_block(call), len(self._content)
        if call.id == block["id"]:
            return b""  # it is in the message that the client has sent
        self._content.append(block)
        given = {"type": "input_json_delta", "partial_json": json.dumps(block["input"], ensure_ascii=False)}
        return self._hold(
            made("content_block_start", index=place, content_block={**block, "input": {}})
            + made("content_block_delta", index=place, delta=given)
            + made("content_block_stop", index=place)
        )

    def ended(self, call: Call, tool: Tool, ran: Ran) -> bytes:
        self.told(call, ran.text)
        block, place = result_block(tool.kind, call, ran), len(self._content)
        self._content.append(block)
        begun = made("content_block_start", index=place, content_block=block)
        return self._hold(begun + made("content_block_stop", index=place))

    def told(self, call: Call, text: str) -> None:
        result = {"type": "tool_result", "tool_use_id": call.id, "content": text}
        last = self._turns[-1] if self._turns else None
        if last is not None and last["role"] == "user":
            last["content"].append(result)
        else:
            self._turns.append({"role": "user", "content": [result]})

    def left(self, call: Call, tool: Tool) -> bytes:
        return self.began(call, tool)

    def approval(self, call: Call, tool: Tool) -> bytes | None:
        return None

    def finished(self, reason: str) -> bytes:
        open_blocks = b"".join(self._block_stop(index) for index in list(self._places))  # of a turn that was cut
        end = made("message_delta", delta=self._last(reason), usage=self._usage_now())
        return open_blocks + end + made("message_stop")

    def whole(self, reason: str) -> bytes:
        message = {**self._message, "content": self._content, **self._last(reason), "usage": self._usage_now()}
        return json.dumps(message, ensure_ascii=False).encode()

    def failed(self, error: Mapping[str, Any]) -> bytes:
        kind = str(error.get("type") or "api_error")
        return made("error", error={"type": kind, "message": str(error.get("message") or "the turn failed")})

    def failure(self, error: Mapping[str, Any]) -> bytes:
        kind = str(error.get("type") or "api_error")
        return json.dumps({"type": "error", "error": {**error, "type": kind}}, ensure_ascii=False).encode()

    def refusal(self, message: str, code: str) -> bytes:
        return error_body(message, code)

    def _hold(self, data: bytes) -> bytes:
        """`data`, or nothing while the message has not begun: it is sent once it has."""
        if self._message:
            return data
        self._held += data
        return b""

    def _last(self, reason: str) -> dict[str, Any]:
        last = {"stop_reason": None, "stop_sequence": None, **self._stop}
        return {**last, "stop_reason": PAUSE} if reason and reason not in CUT else last

    def _count(self, usage: Any) -> None:
        for name in COUNTED if isinstance(usage, dict) else ():
            if isinstance(usage.get(name), int):
                self._usage[name] = self._usage.get(name, 0) + usage[name]

    def _usage_now(self) -> dict[str, Any]:
        web = self._web
        used = {"web_search_requests": web.searches, "web_fetch_requests": web.pages} if web else {}
        return {**self._usage, "server_tool_use": used} if any(used.values()) else dict(self._usage)


def made(kind: str, **rest: Any) -> bytes:
    """One event as bytes."""
    body = json.dumps({"type": kind, **rest}, ensure_ascii=False)
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), body.encode())


def error_body(message: str, code: str) -> bytes:
    """An error in Anthropic's shape."""
    kind = "invalid_request_error" if code != "internal" else "api_error"
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
