"""OpenAI's responses API for the loop: bodies of turns, items of tools, approvals. Pure.

For the model a hosted tool is a function; the client sees the vendor's own items and events, and no function calls but
those of its own functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemotron_ops.agent.apis.face import History, Turn, TurnFailedError
from nemotron_ops.agent.apis.responses_events import LAST, Events
from nemotron_ops.agent.apis.responses_history import REQUEST, SERVER, read_input
from nemotron_ops.agent.apis.responses_items import APPROVAL, LIST_BETWEEN, LIST_ENDED, OURS, SHAPES, Seen, list_items
from nemotron_ops.agent.loop import Said
from nemotron_ops.agent.tools.kinds import hosted
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool
from nemotron_ops.agent.tools.web import Web


def checked(body: bytes) -> dict[str, Any]:
    """The request. Raises InvalidError for fields that hosted tools cannot honour."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidError(f"the body is no JSON: {exc}", "invalid_json") from exc
    if not isinstance(value, dict) or not isinstance(value.get("tools"), list):
        raise InvalidError("tools: expected a list")
    if not isinstance(value.get("input", []), str | list):
        raise InvalidError("input: expected a text or a list of items")
    include = value.get("include")
    if include is not None and not (isinstance(include, list) and all(isinstance(i, str) for i in include)):
        raise InvalidError("include: expected a list of texts")
    if value.get("store"):
        raise InvalidError("store: answers with hosted tools are not stored; send store: false")
    if value.get("background"):
        raise InvalidError("background: answers with hosted tools run in the foreground only")
    most = value.get("max_tool_calls")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise InvalidError("max_tool_calls: expected a number from 1")
    return value


class ResponsesFace:
    """One request to `/v1/responses`."""

    name, path = "responses", "/responses"

    def __init__(self, body: bytes, container: str) -> None:
        self.asked = checked(body)
        self.stream = self.asked.get("stream") is True
        self.most_calls = int(self.asked.get("max_tool_calls") or 0)
        self._container = container
        self._include = frozenset(self.asked.get("include") or ())
        self._tools: dict[str, Tool] = {}
        self._first = read_input(self.asked.get("input", []))
        self._items: list[dict[str, Any]] = []  # what was said and run, for the next turn
        self._last: dict[str, Any] | None = None  # the turn's last event
        self._events = Events(self.asked, (), {})

    def asked_for(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(f"tools[{n}]", tool) for n, tool in enumerate(self.asked["tools"]) if hosted(self.name, tool)]

    def offer(self, tools: Sequence[Tool], web: Web) -> History:
        own = {t.get("name") for t in self.asked["tools"] if isinstance(t, dict) and not hosted(self.name, t)}
        for tool in tools:
            if tool.name in own:
                raise InvalidError(f"tools: a function cannot be named {tool.name!r} beside the hosted tool")
        self._tools = {tool.name: tool for tool in tools}
        web.sources.update(self._first.sources)
        self._events = Events(self.asked, self._tools, web.sources)
        for item in list_items(tools, self._first.listed):  # before the first turn: the events wait for its id
            self._events.began(item, {**item, "tools": []}, LIST_BETWEEN)
            self._events.ended(item, LIST_ENDED)
        return self._first.history

    def turn_body(self) -> dict[str, Any]:
        self._events.next_turn()
        self._last = None
        body = {k: v for k, v in self.asked.items() if k not in ("max_tool_calls", "include", "background")}
        body |= {"input": [*self._first.items, *self._items], "stream": True, "store": False}
        body["tools"] = [t for t in self.asked["tools"] if not hosted(self.name, t)]
        body["tools"] += [function_of(tool) for tool in self._tools.values()]
        if include := sorted(self._include - OURS):
            body["include"] = include
        choice = body.get("tool_choice")
        if isinstance(choice, dict) and (row := hosted(self.name, choice)) is not None:
            names = [t.name for t in self._tools.values() if _chosen(choice, t)]
            body["tool_choice"] = choice = {"type": "function", "name": names[0] if names else row.begins}
        if self._items and (choice == "required" or isinstance(choice, dict)):
            body["tool_choice"] = "auto"  # a call was forced once; forced again, the loop would not end
        return body

    def passed(self, event: Mapping[str, Any]) -> bytes:
        kind = event.get("type")
        if kind in ("error", "response.failed"):
            raise TurnFailedError(event.get("response", event).get("error") or event)
        if kind in LAST:
            self._last = event["response"]
        return self._events.passed(event)

    def turn_said(self) -> Turn | None:
        last = self._last
        if last is None:
            return None
        self._items += last["output"]
        calls = [item for item in last["output"] if item.get("type") == "function_call"]
        ours = [item for item in calls if self._events.is_hosted(item)]
        cut = (last.get("incomplete_details") or {}).get("reason", "") if last["status"] == "incomplete" else ""
        found = tuple(
            Call(id=str(i.get("call_id")), name=str(i["name"]), arguments=str(i.get("arguments") or "")) for i in ours
        )
        return Turn(calls=found, said=Said(hosted=len(ours), own=len(calls) - len(ours), cut=str(cut)))

    def began(self, call: Call, tool: Tool) -> bytes:
        shape, item = SHAPES[tool.kind], self._item(call, tool, None)
        return self._events.began(item, shape.added(item), shape.began(item))

    def ended(self, call: Call, tool: Tool, ran: Ran) -> bytes:
        self.told(call, ran.text)
        item = self._item(call, tool, ran)
        return self._events.ended(item, SHAPES[tool.kind].ended(item))

    def told(self, call: Call, text: str) -> None:
        self._items.append({"type": "function_call_output", "call_id": call.id, "output": text})

    def left(self, call: Call, tool: Tool) -> bytes:
        return b""

    def approval(self, call: Call, tool: Tool) -> bytes | None:
        label = tool.server or SERVER
        item = {
            "id": APPROVAL + call.id, "type": REQUEST, "arguments": call.arguments, "name": tool.remote or tool.name,
            "server_label": label,
        }  # fmt: skip
        return self._events.began(item, item, ()) + self._events.ended(item, ())

    def finished(self, reason: str) -> bytes:
        return self._events.finished(reason)

    def whole(self, reason: str) -> bytes:
        return json.dumps(self._events.response(reason), ensure_ascii=False).encode()

    def failed(self, error: Mapping[str, Any]) -> bytes:
        return self._events.failed(error)

    def failure(self, error: Mapping[str, Any]) -> bytes:
        return json.dumps({"error": dict(error)}, ensure_ascii=False).encode()

    def refusal(self, message: str, code: str) -> bytes:
        return error_body(message, code)

    def _item(self, call: Call, tool: Tool, ran: Ran | None) -> dict[str, Any]:
        shape = SHAPES[tool.kind]
        return shape.item(
            Seen(
                id=shape.prefix + call.id, call=call, tool=tool, ran=ran, container=self._container,
                include=self._include,
            )
        )  # fmt: skip


def _chosen(choice: Mapping[str, Any], tool: Tool) -> bool:
    """Whether a `tool_choice` that names a hosted tool means this one."""
    if choice.get("type") == "mcp":
        return tool.server == choice.get("server_label") and choice.get("name") in (None, tool.remote)
    return str(choice.get("type")).startswith(tool.name)


def function_of(tool: Tool) -> dict[str, Any]:
    """A tool as the model is offered it."""
    return {
        "type": "function", "name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)
    }  # fmt: skip


def error_body(message: str, code: str) -> bytes:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if code != "internal" else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
