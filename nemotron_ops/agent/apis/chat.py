"""OpenAI's chat API for the loop: the profile `agent` of a model, and `web_search_options`. Pure.

The answer is a plain chat: text, annotations, the client's own calls, one usage for all turns. Nothing else is said of
hosted calls, because chat has no shape for them. A budget that ends is the finish reason `length`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nemotron_ops.agent.apis.citing import Marks
from nemotron_ops.agent.apis.face import History, Turn, TurnFailedError
from nemotron_ops.agent.apis.responses import error_body, function_of
from nemotron_ops.agent.loop import Said
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool
from nemotron_ops.agent.tools.web import Web
from nemotron_ops.web.citations import chat_annotation

PROFILE = ":agent"
SEARCH = "web_search_options"
TYPES = {"python": "code_interpreter", "web": "web_search"}  # what is enabled -> the type in the table of tools
BETWEEN = "\n\n"  # texts of two turns
COUNTED = ("prompt_tokens", "completion_tokens", "total_tokens")
DETAILS = (("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens"))


def checked(body: bytes) -> dict[str, Any]:
    """The request. Raises InvalidError for fields that hosted tools cannot honour."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidError(f"the body is no JSON: {exc}", "invalid_json") from exc
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise InvalidError("messages: expected a list")
    if value.get("tools") is not None and not isinstance(value["tools"], list):
        raise InvalidError("tools: expected a list")
    if value.get("n") not in (None, 1):
        raise InvalidError("n: an answer with hosted tools is one")
    if value.get("logprobs"):
        raise InvalidError("logprobs: an answer with hosted tools has none")
    options = value.get(SEARCH)
    if options is not None and not isinstance(options, dict):
        raise InvalidError(f"{SEARCH}: expected an object")
    return value


class ChatFace:
    """One request to `/v1/chat/completions`. `usable` names what can be used here: python, web."""

    name, path = "chat", "/chat/completions"
    most_calls = 0

    def __init__(self, body: bytes, model: str, usable: Collection[str]) -> None:
        self.asked = checked(body)
        self.stream = self.asked.get("stream") is True
        self._model = model
        self._usable = [name for name in TYPES if name in usable]
        self._tools: dict[str, Tool] = {}
        self._marks = Marks({})
        self._turns: list[dict[str, Any]] = []  # messages of this answer's turns, for the next one
        self._chunk: dict[str, Any] = {}  # what all chunks of the answer have
        self._usage: dict[str, Any] = {}
        self._reasoning = ""
        self._own: list[dict[str, Any]] = []  # the client's own calls, as it sees them
        self._reset()

    def _reset(self) -> None:
        self._text, self._thought, self._finish = "", "", ""
        self._calls: dict[int, dict[str, Any]] = {}  # of the turn, by its own index
        self._places: dict[int, int] = {}  # of the client's own calls among them

    def asked_for(self) -> list[tuple[str, Mapping[str, Any]]]:
        if str(self.asked.get("model", "")).endswith(PROFILE):
            if not self._usable:
                raise InvalidError(
                    "cannot use the profile agent: no tool is enabled here; enable one with: nemotron-ops tools enable "
                    "python,web",
                    "tools_not_enabled",
                )
            return [("tools", {"type": TYPES[name], **self._options(name)}) for name in self._usable]
        return [(SEARCH, {"type": TYPES["web"], **self._options("web")})]

    def _options(self, name: str) -> dict[str, Any]:
        return dict(self.asked.get(SEARCH) or {}) if name == "web" else {}

    def offer(self, tools: Sequence[Tool], web: Web) -> History:
        functions = [t.get("function") or {} for t in self.asked.get("tools") or () if isinstance(t, dict)]
        own = {f.get("name") for f in functions if isinstance(f, dict)}
        for tool in tools:
            if tool.name in own:
                raise InvalidError(f"tools: a function cannot be named {tool.name!r} beside the hosted tool")
        self._tools = {tool.name: tool for tool in tools}
        self._marks = Marks(web.sources)
        return History(texts=tuple(_texts(self.asked["messages"])))

    def turn_body(self) -> dict[str, Any]:
        self._reset()
        body = {k: v for k, v in self.asked.items() if k != SEARCH}
        body |= {"messages": [*self.asked["messages"], *self._turns], "stream": True}
        body |= {"stream_options": {"include_usage": True}, "model": self._model or body.get("model")}
        hosted = [{"type": "function", "function": _inner(tool)} for tool in self._tools.values()]
        body["tools"] = [*(self.asked.get("tools") or ()), *hosted]
        if self._turns and (body.get("tool_choice") == "required" or isinstance(body.get("tool_choice"), dict)):
            body["tool_choice"] = "auto"  # a call was forced once; forced again, the loop would not end
        return body

    def passed(self, event: Mapping[str, Any]) -> bytes:
        if "error" in event:
            raise TurnFailedError(event["error"])
        begins = not self._chunk
        if begins:
            named = {"model": self.asked["model"]} if isinstance(self.asked.get("model"), str) else {}
            self._chunk = {k: v for k, v in event.items() if k not in ("choices", "usage", "timings")} | named
        self._count(event.get("usage"))
        choices = event.get("choices") or ()
        if not choices:
            return b""
        self._finish = str(choices[0].get("finish_reason") or self._finish)
        delta = self._shown(choices[0].get("delta") or {}, begins=begins)
        return self._made(delta) if delta else b""

    def _shown(self, delta: Mapping[str, Any], *, begins: bool) -> dict[str, Any]:
        """What the client sees of a turn's delta."""
        shown = {k: v for k, v in delta.items() if k not in ("role", "tool_calls", "content", "reasoning_content")}
        if begins:
            shown |= {"role": "assistant", "content": None}
        if thought := delta.get("reasoning_content"):
            self._thought += thought
            self._reasoning += thought
            shown["reasoning_content"] = thought
        if text := delta.get("content"):
            if not self._text and self._marks.text:
                self._marks.add(BETWEEN)
                text_shown = BETWEEN + text
            else:
                text_shown = text
            self._text += text
            self._marks.add(text)
            shown["content"] = text_shown
        if calls := [c for part in delta.get("tool_calls") or () if (c := self._call_part(part))]:
            shown["tool_calls"] = calls
        return shown

    def _call_part(self, part: Mapping[str, Any]) -> dict[str, Any] | None:
        """A part of a call, as the client sees it; None for one of a hosted tool."""
        index, function = int(part.get("index") or 0), part.get("function") or {}
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = {
                "id": part.get("id"), "type": "function",
                "function": {"name": str(function.get("name") or ""), "arguments": ""},
            }  # fmt: skip
            if call["function"]["name"] not in self._tools:
                self._places[index] = len(self._own)
                self._own.append(call)
        call["function"]["arguments"] += str(function.get("arguments") or "")
        return {**part, "index": self._places[index]} if index in self._places else None

    def turn_said(self) -> Turn | None:
        if not self._finish:
            return None
        calls = [self._calls[index] for index in sorted(self._calls)]
        ours = [c for c in calls if c["function"]["name"] in self._tools]
        cut = "length" if self._finish == "length" else ""
        message: dict[str, Any] = {"role": "assistant", "content": self._text}
        if self._thought:
            message["reasoning_content"] = self._thought
        if calls:
            message["tool_calls"] = calls
        self._turns.append(message)
        made = tuple(
            Call(id=str(c["id"]), name=c["function"]["name"], arguments=c["function"]["arguments"]) for c in ours
        )
        return Turn(calls=made, said=Said(hosted=len(ours), own=len(calls) - len(ours), cut=cut))

    def began(self, call: Call, tool: Tool) -> bytes:
        return b""

    def ended(self, call: Call, tool: Tool, ran: Ran) -> bytes:
        self.told(call, ran.text)
        return b""

    def left(self, call: Call, tool: Tool) -> bytes:
        return b""

    def told(self, call: Call, text: str) -> None:
        self._turns.append({"role": "tool", "tool_call_id": call.id, "content": text})

    def approval(self, call: Call, tool: Tool) -> bytes | None:
        return None

    def finished(self, reason: str) -> bytes:
        notes = self._annotations()
        data = self._made({"annotations": notes}) if notes else b""
        data += self._made({}, finish=self._reason(reason))
        options = self.asked.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            data += _data({**self._chunk, "choices": [], "usage": self._usage})
        return data + b"data: [DONE]\n\n"

    def whole(self, reason: str) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": self._marks.text}
        if self._reasoning:
            message["reasoning_content"] = self._reasoning
        if self._own:
            message["tool_calls"] = self._own
        if notes := self._annotations():
            message["annotations"] = notes
        choice = {"index": 0, "message": message, "finish_reason": self._reason(reason), "logprobs": None}
        answer = {**self._chunk, "object": "chat.completion", "choices": [choice], "usage": self._usage}
        return json.dumps(answer, ensure_ascii=False).encode()

    def failed(self, error: Mapping[str, Any]) -> bytes:
        return _data({"error": dict(error)})

    def failure(self, error: Mapping[str, Any]) -> bytes:
        return json.dumps({"error": dict(error)}, ensure_ascii=False).encode()

    def refusal(self, message: str, code: str) -> bytes:
        return error_body(message, code)

    def _reason(self, reason: str) -> str:
        if reason:
            return "length"
        return "tool_calls" if self._own else "stop" if self._finish == "tool_calls" else self._finish

    def _annotations(self) -> list[dict[str, Any]]:
        self._marks.end()
        return [chat_annotation(it) for it in self._marks.found]

    def _made(self, delta: dict[str, Any], *, finish: str | None = None) -> bytes:
        return _data({**self._chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        for name in COUNTED:
            self._usage[name] = self._usage.get(name, 0) + int(usage.get(name) or 0)
        for name, inner in DETAILS:
            if isinstance(more := usage.get(name), dict) and isinstance(more.get(inner), int):
                self._usage[name] = {inner: self._usage.get(name, {}).get(inner, 0) + more[inner]}


def _inner(tool: Tool) -> dict[str, Any]:
    return {k: v for k, v in function_of(tool).items() if k != "type"}


def _texts(messages: Sequence[Any]) -> list[str]:
    """Texts of the person's."""
    found = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "system", "developer"):
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        found += [p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)]
    return found


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
