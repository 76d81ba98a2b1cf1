"""Items of hosted tools in OpenAI's responses API, and the events around them. Pure.

A further kind of tool is a row of `SHAPES`.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.agent.tools.mcp_tools import RemoteResult
from nemotron_ops.agent.tools.remote_names import function_name
from nemotron_ops.agent.tools.tool import Call, Ran, Tool, ToolKind
from nemotron_ops.agent.tools.web import Found
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.web.frame import framed

OUTPUTS = "code_interpreter_call.outputs"
RESULTS = "web_search_call.results"
SOURCES = "web_search_call.action.sources"
OURS = frozenset({OUTPUTS, RESULTS, SOURCES})  # of `include`: the agent's own

APPROVAL = "mcpr_"  # ids of approvals begin with it; the call that was approved has its id
LIST = "mcp_list_tools"
EARLIER = 40_000  # letters of an earlier result

Item = dict[str, Any]
Between = tuple[tuple[str, dict[str, Any]], ...]  # events: type, and fields beside place and item_id


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One call as an item needs it; without `ran` it is in progress. `include` is the client's."""

    id: str
    call: Call
    tool: Tool
    ran: Ran | None
    container: str
    include: Collection[str]


@dataclass(frozen=True, kw_only=True)
class ItemShape:
    """How one kind of tool is shown. `added` is the item of `output_item.added`, before anything of it is said."""

    prefix: str
    item: Callable[[Seen], Item]
    added: Callable[[Item], Item]
    began: Callable[[Item], Between]
    ended: Callable[[Item], Between]


def _code_item(seen: Seen) -> Item:
    outcome = seen.ran.detail if seen.ran else None
    status = "in_progress" if seen.ran is None else "failed" if seen.ran.error else "completed"
    shown = outputs_of(outcome) if OUTPUTS in seen.include and isinstance(outcome, Outcome) else None
    code = seen.call.text("code") or ""
    return {
        "id": seen.id, "type": "code_interpreter_call", "status": status, "code": code, "container_id": seen.container,
        "outputs": shown,
    }  # fmt: skip


def outputs_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Logs and images of a call."""
    logs = "\n".join(p.rstrip("\n") for p in (outcome.stdout, outcome.stderr, outcome.result or "") if p)
    found = [{"type": "logs", "logs": logs}] if logs else []
    for image in outcome.images:
        found.append({"type": "image", "url": f"data:{image.mime};base64,{base64.b64encode(image.content).decode()}"})
    return found


def _code_began(item: Item) -> Between:
    return (
        ("response.code_interpreter_call.in_progress", {}),
        ("response.code_interpreter_call_code.delta", {"delta": item["code"]}),
        ("response.code_interpreter_call_code.done", {"code": item["code"]}),
        ("response.code_interpreter_call.interpreting", {}),
    )


def _web_item(seen: Seen) -> Item:
    status = "in_progress" if seen.ran is None else "failed" if seen.ran.error else "completed"
    if seen.tool.kind is ToolKind.PAGE:
        action: dict[str, Any] = {"type": "open_page", "url": seen.call.text("url") or ""}
    else:
        query = seen.call.text("query") or ""
        action = {"type": "search", "query": query, "queries": [query]}
    item: Item = {"id": seen.id, "type": "web_search_call", "status": status, "action": action}
    found = seen.ran.detail if seen.ran else None
    if isinstance(found, Found):
        if SOURCES in seen.include:
            action["sources"] = [{"type": "url", "url": hit.url} for hit in found.hits]
        if RESULTS in seen.include:
            item["results"] = [{"url": h.url, "title": h.title, "snippet": h.passage} for h in found.hits]
    return item


def _web_began(item: Item) -> Between:
    return (("response.web_search_call.in_progress", {}), ("response.web_search_call.searching", {}))


def _done(kind: str) -> Callable[[Item], Between]:
    return lambda item: ((f"response.{kind}.completed", {}),)


def _mcp_item(seen: Seen) -> Item:
    result = seen.ran.detail if seen.ran else None
    text = result.text if isinstance(result, RemoteResult) else seen.ran.text if seen.ran else None
    failed = bool(seen.ran and seen.ran.error)
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]} if failed else None
    return {
        "id": seen.id, "type": "mcp_call", "status": "in_progress" if seen.ran is None else _status(seen.ran),
        "approval_request_id": seen.call.id if seen.call.id.startswith(APPROVAL) else None,
        "arguments": seen.call.arguments or "{}", "name": seen.tool.remote, "server_label": seen.tool.server,
        "output": None if failed else text, "error": error,
    }  # fmt: skip


def _status(ran: Ran) -> str:
    return "failed" if ran.error else "completed"


def _mcp_began(item: Item) -> Between:
    return (
        ("response.mcp_call.in_progress", {}),
        ("response.mcp_call_arguments.delta", {"delta": item["arguments"]}),
        ("response.mcp_call_arguments.done", {"arguments": item["arguments"]}),
    )


def _mcp_ended(item: Item) -> Between:
    return ((f"response.mcp_call.{item['status']}", {}),)


def list_items(tools: Iterable[Tool], known: Collection[str]) -> list[Item]:
    """An `mcp_list_tools` item for each server that has some of `tools`, but for those that the client knows."""
    found: dict[str, Item] = {}
    for tool in tools:
        if tool.listed is None or tool.server in known:
            continue
        empty: Item = {"type": LIST, "server_label": tool.server, "tools": [], "error": None}
        item = found.setdefault(tool.server, {"id": f"mcpl_{secrets.token_hex(16)}", **empty})
        item["tools"].append(
            {
                "name": tool.remote, "description": tool.listed.get("description"),
                "input_schema": tool.listed.get("inputSchema"), "annotations": tool.listed.get("annotations"),
            }
        )  # fmt: skip
    return list(found.values())


LIST_BETWEEN: Between = ((f"response.{LIST}.in_progress", {}),)
LIST_ENDED: Between = ((f"response.{LIST}.completed", {}),)
CODE = ItemShape(
    prefix="ci_", item=_code_item, added=lambda item: {**item, "code": ""}, began=_code_began,
    ended=_done("code_interpreter_call"),
)  # fmt: skip
WEB = ItemShape(
    prefix="ws_", item=_web_item, added=lambda item: item, began=_web_began, ended=_done("web_search_call")
)  # fmt: skip
MCP = ItemShape(
    prefix="mcp_", item=_mcp_item, added=lambda item: {**item, "arguments": ""}, began=_mcp_began, ended=_mcp_ended
)  # fmt: skip
SHAPES: Mapping[ToolKind, ItemShape] = {
    ToolKind.PYTHON: CODE, ToolKind.SEARCH: WEB, ToolKind.PAGE: WEB, ToolKind.MCP: MCP,
}  # fmt: skip


def earlier_call(item: Mapping[str, Any]) -> list[Item]:
    """An item of an earlier answer as the model knows it: a call of a function, and its result."""
    if item.get("type") == "mcp_call":
        return _earlier_remote(item)
    action = item.get("action") or {}
    if item.get("type") != "web_search_call" or not isinstance(action, dict):
        return [dict(item)]
    page = action.get("type") == "open_page"
    name, argument = ("read_page", "url") if page else ("web_search", "query")
    call_id = str(item.get("id") or "ws")
    arguments = json.dumps({argument: str(action.get(argument) or "")}, ensure_ascii=False)
    results = item.get("results")
    text = json.dumps(results, ensure_ascii=False) if results else "[shown in an earlier answer]"
    return [
        {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": text},
    ]


def _earlier_remote(item: Mapping[str, Any]) -> list[Item]:
    server, name = str(item.get("server_label") or ""), str(item.get("name") or "")
    call_id, error = str(item.get("id") or "mcp"), item.get("error")
    text = str(item.get("output") or "") if not error else json.dumps(error, ensure_ascii=False)
    shown = framed(text, source=f"MCP server {server}, tool {name}", most=EARLIER)
    arguments = item.get("arguments")
    return [
        {
            "type": "function_call", "call_id": call_id, "name": function_name(server, name),
            "arguments": arguments if isinstance(arguments, str) else "{}",
        },
        {"type": "function_call_output", "call_id": call_id, "output": shown},
    ]  # fmt: skip
