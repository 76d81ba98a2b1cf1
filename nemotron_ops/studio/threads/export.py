"""A chat as Markdown, JSON, or JSON lines for tuning. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nemotron_ops.studio.threads.tree import Message

KINDS = {"md": "text/markdown", "json": "application/json", "jsonl": "application/jsonl"}


def exported(kind: str, title: str, system: str, branch: Sequence[Message]) -> str:
    """One branch of a chat in the format `kind`."""
    if kind == "md":
        return _markdown(title, branch)
    messages = [{"role": "system", "content": system}] if system else []
    messages += [_message(m) for m in branch]
    if kind == "jsonl":
        return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
    return json.dumps({"title": title, "messages": messages}, ensure_ascii=False, indent=2) + "\n"


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.sent}
    if message.thinking:
        made["reasoning_content"] = message.thinking
    return made


def _markdown(title: str, branch: Sequence[Message]) -> str:
    parts = [f"# {title}"]
    for message in branch:
        parts.append(f"## {'Question' if message.role == 'user' else 'Answer'}")
        if message.thinking:
            parts.append("\n".join(f"> {line}" for line in message.thinking.splitlines()))
        parts.append(message.sent)
    return "\n\n".join(parts) + "\n"
