"""Blocks of hosted tools in Anthropic's messages API: a use, its result, and both of an earlier answer. Pure.

A further kind of tool is a row of `SHAPES`. What an earlier answer found comes back in `encrypted_content`, as the
vendor's does: here it is the number of the hit and its passage, encoded.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.agent.tools.tool import Call, Ran, ToolKind
from nemotron_ops.agent.tools.web import Found, Opened
from nemotron_ops.sandbox.limits import Limit
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.web.frame import broken_tokens, framed, listed, shortened
from nemotron_ops.web.hits import Hit

Block = dict[str, Any]
MOST_LETTERS = 16_000  # of a page in a result
SEARCH_ERRORS = frozenset(
    {"invalid_tool_input", "unavailable", "max_uses_exceeded", "too_many_requests", "query_too_long"}
)  # fmt: skip
FETCH_ERRORS = SEARCH_ERRORS | {"url_not_allowed", "url_not_in_prior_context", "url_not_accessible"}
CODE_ERRORS = frozenset({"invalid_tool_input", "unavailable", "too_many_requests", "execution_time_exceeded"})


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """How one kind of tool is shown: the type of its result block, and that block's content."""

    result: str
    content: Callable[[Ran], Any]


def use_block(call: Call) -> Block:
    """The block of a call."""
    return {"type": "server_tool_use", "id": use_id(call), "name": call.name, "input": call.given}


def use_id(call: Call) -> str:
    """The id of a call's block; a call that an earlier answer left keeps its own."""
    return call.id if call.id.startswith("srvtoolu_") else f"srvtoolu_{call.id}"


def result_block(kind: ToolKind, call: Call, ran: Ran) -> Block:
    """The block of a result."""
    shape = SHAPES[kind]
    return {"type": shape.result, "tool_use_id": use_id(call), "content": shape.content(ran)}


def _error(kind: str, ran: Ran, known: frozenset[str]) -> Block:
    return {"type": kind, "error_code": ran.error if ran.error in known else "unavailable"}


def _search_content(ran: Ran) -> Any:
    if ran.error:
        return _error("web_search_tool_result_error", ran, SEARCH_ERRORS)
    found = ran.detail if isinstance(ran.detail, Found) else Found(query="")
    return [
        {
            "type": "web_search_result", "url": hit.url, "title": hit.title,
            "encrypted_content": packed(number, hit.passage or hit.text), "page_age": hit.date or None,
        }
        for number, hit in enumerate(found.hits, found.first)
    ]  # fmt: skip


def _fetch_content(ran: Ran) -> Any:
    page = ran.detail.page if isinstance(ran.detail, Opened) else None
    if ran.error or page is None:
        return _error("web_fetch_tool_result_error", ran, FETCH_ERRORS)
    source = {"type": "text", "media_type": "text/plain", "data": shortened(page.text, MOST_LETTERS)}
    document = {"type": "document", "source": source, "title": page.title or None, "citations": {"enabled": True}}
    return {"type": "web_fetch_result", "url": page.url, "content": document, "retrieved_at": None}


def _code_content(name: str) -> Callable[[Ran], Any]:
    def content(ran: Ran) -> Any:
        outcome = ran.detail
        if isinstance(outcome, Outcome) and Limit.TIME in outcome.limits_hit:
            return {"type": f"{name}_tool_result_error", "error_code": "execution_time_exceeded"}
        if ran.error or not isinstance(outcome, Outcome):
            return _error(f"{name}_tool_result_error", ran, CODE_ERRORS)
        return {
            "type": f"{name}_result", "stdout": outcome.stdout + (outcome.result or ""), "stderr": outcome.stderr,
            "return_code": outcome.exit_code, "content": [],
        }  # fmt: skip

    return content


SHAPES: Mapping[ToolKind, BlockShape] = {
    ToolKind.SEARCH: BlockShape(result="web_search_tool_result", content=_search_content),
    ToolKind.PAGE: BlockShape(result="web_fetch_tool_result", content=_fetch_content),
    ToolKind.PYTHON: BlockShape(result="code_execution_tool_result", content=_code_content("code_execution")),
    ToolKind.BASH: BlockShape(result="bash_code_execution_tool_result", content=_code_content("bash_code_execution")),
}


def packed(number: int, passage: str) -> str:
    """A hit for `encrypted_content`."""
    return base64.b64encode(json.dumps({"n": number, "passage": passage}).encode()).decode()


def unpacked(text: Any) -> tuple[int, str]:
    """Number and passage of a hit; 0 and nothing if this server did not write it."""
    try:
        value = json.loads(base64.b64decode(str(text), validate=True))
        return int(value["n"]), str(value["passage"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0, ""


# results of an earlier answer


def is_result(block: Mapping[str, Any]) -> bool:
    """Whether a block is the result of a hosted tool."""
    return any(block.get("type") == shape.result for shape in SHAPES.values())


def hits_of(block: Mapping[str, Any]) -> dict[int, Hit]:
    """The hits of an earlier search, by their numbers."""
    content, found = block.get("content"), dict[int, Hit]()
    for one in content if isinstance(content, list) else ():
        if isinstance(one, dict) and one.get("type") == "web_search_result":
            number, passage = unpacked(one.get("encrypted_content"))
            hit = Hit(url=str(one.get("url")), title=str(one.get("title")), passage=passage)
            found[number or len(found) + 1] = hit
    return found


def result_text(block: Mapping[str, Any]) -> str:
    """What the model is told of an earlier result."""
    content = block.get("content")
    if hits := hits_of(block):
        return listed(list(hits.values()), first=min(hits), most=MOST_LETTERS)
    if not isinstance(content, dict):
        return "nothing was found"
    if "error_code" in content:
        return f"the call failed: {content['error_code']}"
    if content.get("type") == "web_fetch_result":
        document = content.get("content") or {}
        text = str((document.get("source") or {}).get("data") or "")
        return framed(f"{document.get('title') or ''}\n\n{text}", source=str(content.get("url")), most=MOST_LETTERS)
    parts = [str(content.get(name) or "") for name in ("stdout", "stderr")]
    if content.get("return_code"):
        parts.append(f"[exit code {content['return_code']}]")
    text = "\n".join(p.rstrip("\n") for p in parts if p)
    return broken_tokens(shortened(text, MOST_LETTERS)) or "[no output]"
