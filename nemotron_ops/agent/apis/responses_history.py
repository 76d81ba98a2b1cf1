"""What the input of a response brings from earlier ones: items, sources, approvals. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.agent.apis.face import History
from nemotron_ops.agent.apis.responses_items import LIST, earlier_call
from nemotron_ops.agent.tools.remote_names import function_name
from nemotron_ops.agent.tools.tool import Call
from nemotron_ops.web.citations import MARK, Source
from nemotron_ops.web.frame import broken_tokens

REQUEST, RESPONSE = "mcp_approval_request", "mcp_approval_response"
SERVER = "nemotron-ops"  # label of this server's own tools in approvals
UNANSWERED = "the person has not answered whether this call may be run"


@dataclass
class Read:
    """An input as the next turn gets it, and what it leaves."""

    items: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[int, Source] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)  # labels of servers whose tools the client knows
    history: History = field(default_factory=History)


def read_input(given: Any) -> Read:
    """Read `input`, a text or a list of items."""
    if isinstance(given, str):
        return Read(items=[{"role": "user", "content": given}], history=History(texts=(given,)))
    items = [item for item in given if isinstance(item, dict)]
    answers = {str(i.get("approval_request_id")): i.get("approve") is True for i in items if i.get("type") == RESPONSE}
    read = Read()
    texts: list[str] = []
    urls: list[str] = []
    approved: list[Call] = []
    refused: list[Call] = []
    tainted = False
    for item in items:
        kind = item.get("type")
        if kind == REQUEST:
            call = _call_of(item)
            read.items.append(_function_call(call))
            if call.id not in answers:
                read.items.append({"type": "function_call_output", "call_id": call.id, "output": UNANSWERED})
            else:
                (approved if answers[call.id] else refused).append(call)
        elif kind == "web_search_call":
            tainted = True
            urls += _urls_of(item)
            read.items += earlier_call(_safe(item))
        elif kind == "mcp_call":
            tainted = True
            read.items += earlier_call(item)
        elif kind == LIST:
            read.listed.add(str(item.get("server_label")))
        elif kind != RESPONSE:
            read.items.append(item)
            texts += _texts_of(item)
            read.sources.update(_cited_in(item))
    urls += [source.url for source in read.sources.values()]
    read.history = History(
        texts=tuple(texts), urls=tuple(urls), tainted=tainted or bool(read.sources), waiting=tuple(approved),
        refused=tuple(refused),
    )  # fmt: skip
    return read


def _call_of(item: Mapping[str, Any]) -> Call:
    name, server = str(item.get("name")), str(item.get("server_label") or SERVER)
    if server != SERVER:
        name = function_name(server, name)
    return Call(id=str(item.get("id")), name=name, arguments=str(item.get("arguments") or "{}"))


def _function_call(call: Call) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _safe(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of a search whose results cannot end a turn of the model."""
    results = item.get("results")
    if not isinstance(results, list):
        return dict(item)
    kept = [{k: broken_tokens(str(v)) for k, v in r.items()} for r in results if isinstance(r, dict)]
    return {**item, "results": kept}


def _urls_of(item: Mapping[str, Any]) -> list[str]:
    action = item.get("action")
    found = [action.get("url")] if isinstance(action, dict) else []
    for listed in (action.get("sources") if isinstance(action, dict) else None, item.get("results")):
        found += [one.get("url") for one in listed or () if isinstance(one, dict)]
    return [url for url in found if isinstance(url, str)]


def _parts(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    content = item.get("content")
    if isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))


def _texts_of(item: Mapping[str, Any]) -> list[str]:
    """Texts of the person's: what they wrote, not what a tool or the model said."""
    if item.get("role") not in ("user", "system", "developer"):
        return []
    if isinstance(content := item.get("content"), str):
        return [content]
    return [part["text"] for part in _parts(item) if isinstance(part.get("text"), str)]


def _cited_in(item: Mapping[str, Any]) -> dict[int, Source]:
    """Sources that an earlier answer cites, by their numbers: they keep them."""
    found = {}
    for part in _parts(item) if item.get("role") == "assistant" else ():
        text, annotations = str(part.get("text") or ""), part.get("annotations")
        for one in annotations if isinstance(annotations, list) else ():
            if not isinstance(one, dict) or one.get("type") != "url_citation":
                continue
            start, url = one.get("start_index"), one.get("url")
            mark = MARK.match(text, start) if isinstance(start, int) and 0 <= start < len(text) else None
            if mark and isinstance(url, str):
                found[int(mark[1])] = Source(url=url, title=str(one.get("title") or ""))
    return found
