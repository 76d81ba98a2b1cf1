"""What the messages of a request bring from earlier answers: turns as the engine knows them, sources, calls. Pure.

One message of an earlier answer may hold several turns of the model, with results between them: it becomes as many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.agent.apis.face import History
from nemotron_ops.agent.apis.messages_blocks import hits_of, is_result, result_text
from nemotron_ops.agent.tools.tool import Call
from nemotron_ops.web.citations import Source

LOST = "the result of this call is not known"


@dataclass
class Read:
    """Messages as the next turn gets them, and what they leave."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[int, Source] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    waiting: tuple[Call, ...] = ()

    @property
    def history(self) -> History:
        tainted = bool(self.urls)
        return History(texts=tuple(self.texts), urls=tuple(self.urls), tainted=tainted, waiting=self.waiting)


def read_messages(given: list[Any]) -> Read:
    """Read `messages`; what is no message is left to the engine, which says what is wrong with it."""
    read = Read()
    for place, message in enumerate(given):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(message, dict) and message.get("role") == "assistant" and isinstance(content, list):
            _assistant(read, content, last=place == len(given) - 1)
            continue
        read.messages.append(message)
        if isinstance(message, dict) and message.get("role") == "user":
            read.texts += _texts(content)
    return read


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)]


def _assistant(read: Read, content: list[Any], *, last: bool) -> None:
    """Split an answer at its results; a use without one waits to be run if the answer is the last message."""
    results = {str(b.get("tool_use_id")): b for b in content if isinstance(b, dict) and is_result(b)}
    said: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    waiting: list[Call] = []

    def close() -> None:
        if said:
            read.messages.append({"role": "assistant", "content": list(said)})
        if answered:
            read.messages.append({"role": "user", "content": list(answered)})
        said.clear()
        answered.clear()

    for block in content:
        if not isinstance(block, dict) or is_result(block):
            continue
        if block.get("type") != "server_tool_use":
            if answered and block.get("type") != "tool_use":
                close()
            said.append({k: v for k, v in block.items() if k != "citations"} if block.get("type") == "text" else block)
            continue
        use_id, name = str(block.get("id")), str(block.get("name"))
        said.append({"type": "tool_use", "id": use_id, "name": name, "input": block.get("input") or {}})
        result = results.get(use_id)
        if result is not None:
            _learn(read, result)
            answered.append(_result(use_id, result_text(result)))
        elif last:
            waiting.append(Call(id=use_id, name=name, arguments=json.dumps(block.get("input") or {})))
        else:
            answered.append(_result(use_id, LOST))
    close()
    read.waiting = tuple(waiting)


def _result(use_id: str, text: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": use_id, "content": text}


def _learn(read: Read, block: Mapping[str, Any]) -> None:
    """The addresses and sources of an earlier result."""
    for number, hit in hits_of(block).items():
        read.sources[number] = Source(url=hit.url, title=hit.title, passage=hit.passage)
        read.urls.append(hit.url)
    content = block.get("content")
    if isinstance(content, dict) and content.get("type") == "web_fetch_result":
        read.urls.append(str(content.get("url")))
