"""Messages of a chat as a tree: branches, edits, forks. Pure. No operation removes a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ROOT = ""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file of a message: `text` is what the model reads of it, `sha256` names its bytes in the store."""

    name: str
    mime: str
    sha256: str
    size_bytes: int
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn. `parent` is the message before it; `made_by` is what answered: model, build, settings, times."""

    id: str
    chat: str
    parent: str
    role: str  # user or assistant
    content: str
    thinking: str = ""
    state: str = "done"
    error: str = ""
    created_s: float = 0.0
    made_by: Mapping[str, Any] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    images: tuple[str, ...] = ()  # data URLs, filled in from the store before a request

    @property
    def sent(self) -> str:
        """What the model reads: the text, and the texts of attachments before it."""
        files = [f"[file: {a.name}]\n{a.text}\n[end of file]" for a in self.attachments if a.text]
        return "\n\n".join([*files, self.content]) if files else self.content


class Tree:
    """The messages of one chat."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.by_id = {m.id: m for m in messages}
        self.children: dict[str, list[str]] = {}
        for message in self.by_id.values():
            parent = message.parent if message.parent in self.by_id else ROOT
            self.children.setdefault(parent, []).append(message.id)

    def branch(self, leaf: str) -> list[Message]:
        """The messages from the first one to `leaf`."""
        found: list[Message] = []
        seen: set[str] = set()
        while leaf in self.by_id and leaf not in seen:
            seen.add(leaf)
            found.append(self.by_id[leaf])
            leaf = self.by_id[leaf].parent
        return found[::-1]

    def leaf_below(self, message: str) -> str:
        """The newest message at the end of the branch that goes on from `message`."""
        seen: set[str] = set()
        while (below := self.children.get(message)) and message not in seen:
            seen.add(message)
            message = below[-1]
        return message

    def siblings(self, message: str) -> list[str]:
        """The messages with the same parent, oldest first."""
        parent = self.by_id[message].parent
        return self.children.get(parent if parent in self.by_id else ROOT, [])
