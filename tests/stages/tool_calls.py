"""One request with functions in each API, whole or streamed, read into the same shape. httpx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

APIS = ("chat", "messages", "responses")


@dataclass
class Said:
    """What a client got."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)  # name, arguments as JSON
    reason: str = ""
    steps: list[str] = field(default_factory=list)
    invalid: list[Any] = field(default_factory=list)
    truncated: str = ""

    @property
    def read(self) -> list[tuple[str, Any]]:
        """The calls with their arguments read."""
        return [(name, json.loads(text)) for name, text in self.calls]


def body_of(api: str, question: str, tools: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A request that offers `tools`, name -> schema. `strict` marks them so."""
    strict = {"strict": True} if more.pop("strict", False) else {}
    limit = {"max_output_tokens" if api == "responses" else "max_tokens": more.pop("max_tokens", 200)}
    body: dict[str, Any] = {"model": more.pop("model", "tiny"), "temperature": 0, **limit, **more}
    messages = [{"role": "user", "content": question}]
    if api == "messages":
        return body | {"messages": messages, "tools": [{"name": n, "input_schema": s} for n, s in tools.items()]}
    if api == "responses":
        offered = [{"type": "function", "name": n, "parameters": s, **strict} for n, s in tools.items()]
        return body | {"input": messages, "tools": offered}
    functions = [{"type": "function", "function": {"name": n, "parameters": s, **strict}} for n, s in tools.items()]
    return body | {"messages": messages, "tools": functions}


def said(url: str, api: str, body: dict[str, Any], *, stream: bool, headers: Mapping[str, str] | None = None) -> Said:
    """Ask, and read the answer. Raises AssertionError unless it is 200."""
    path = "chat/completions" if api == "chat" else api
    asked = {**body, **({"stream": True} if stream else {})}
    answer = httpx.post(f"{url}/v1/{path}", json=asked, headers=dict(headers or {}), timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    if not stream:
        found = _whole(api, answer.json())
        found.steps = [s for s in answer.headers.get("x-tool-calls-healed", "").split(", ") if s]
        return found
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    values = [json.loads(e) for e in events if e != "[DONE]"]
    if api == "responses":
        last = values[-1]
        assert last["type"] in ("response.completed", "response.incomplete"), last
        whole = _whole(api, last["response"])
        assert last["type"] == "response.incomplete" or whole.calls == _streamed_calls(values)
        return whole
    return _chat(values) if api == "chat" else _messages(values)


def _whole(api: str, value: dict[str, Any]) -> Said:
    found = Said(invalid=value.get("invalid_tool_calls", []), truncated=value.get("truncated_tool_call", ""))
    found.steps = list(value.get("tool_calls_healed", []))
    if api == "chat":
        choice = value["choices"][0]
        found.text, found.reason = choice["message"]["content"] or "", choice["finish_reason"]
        calls = choice["message"].get("tool_calls") or []
        found.calls = [(c["function"]["name"], c["function"]["arguments"]) for c in calls]
    elif api == "messages":
        found.text = "".join(b["text"] for b in value["content"] if b["type"] == "text")
        found.reason = value["stop_reason"]
        found.calls = [(b["name"], json.dumps(b["input"])) for b in value["content"] if b["type"] == "tool_use"]
    else:
        items = value["output"]
        found.text = "".join(p["text"] for i in items if i["type"] == "message" for p in i["content"])
        found.reason = (value.get("incomplete_details") or {}).get("reason") or value["status"]
        found.calls = [(i["name"], i["arguments"]) for i in items if i["type"] == "function_call"]
    return found


def _streamed_calls(values: list[Any]) -> list[tuple[str, str]]:
    names = {v["output_index"]: v["item"]["name"] for v in values if v["type"] == "response.output_item.added"
             and v["item"]["type"] == "function_call"}  # fmt: skip
    parts: dict[int, str] = dict.fromkeys(names, "")
    for value in values:
        if value["type"] == "response.function_call_arguments.delta":
            parts[value["output_index"]] += value["delta"]
    return [(names[n], parts[n]) for n in names]


def _chat(values: list[Any]) -> Said:
    found, names, parts = Said(), dict[int, str](), dict[int, str]()
    for value in values:
        for choice in value.get("choices", ()):
            delta = choice["delta"]
            found.text += delta.get("content") or ""
            found.reason = choice["finish_reason"] or found.reason
            for call in delta.get("tool_calls") or ():
                function = call["function"]
                names[call["index"]] = names.get(call["index"], "") + (function.get("name") or "")
                parts[call["index"]] = parts.get(call["index"], "") + (function.get("arguments") or "")
        _marks(found, value)
    found.calls = [(names[n], parts[n]) for n in sorted(names)]
    return found


def _messages(values: list[Any]) -> Said:
    found, names, parts = Said(), dict[int, str](), dict[int, str]()
    for value in values:
        match value["type"]:
            case "content_block_start" if value["content_block"]["type"] == "tool_use":
                names[value["index"]], parts[value["index"]] = value["content_block"]["name"], ""
            case "content_block_delta":
                found.text += value["delta"].get("text", "")
                if "partial_json" in value["delta"]:
                    parts[value["index"]] += value["delta"]["partial_json"]
            case "message_delta":
                found.reason = value["delta"]["stop_reason"]
                _marks(found, value)
            case _:
                pass
    found.calls = [(names[n], parts[n] or "{}") for n in sorted(names)]
    return found


def _marks(found: Said, value: dict[str, Any]) -> None:
    found.steps = value.get("tool_calls_healed", found.steps)
    found.invalid = value.get("invalid_tool_calls", found.invalid)
    found.truncated = value.get("truncated_tool_call", found.truncated)
