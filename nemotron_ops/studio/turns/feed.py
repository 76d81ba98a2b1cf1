"""Numbered lines for the tabs that look at a chat. asyncio.

A tab asks for all lines since a number, and gets them and what follows. The last lines of a chat are kept, so that a
tab which was away for a moment misses nothing; one that was away longer loads the chat anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

KEPT = 5000  # lines of one chat
BEAT_S = 15.0  # an empty line, so that a dead connection is noticed


@dataclass
class Channel:
    """The lines of one chat."""

    next: int = 1
    lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    readers: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """The channels of all chats."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    def say(self, chat: str, line: dict[str, Any]) -> None:
        """Give a line its number, and wake the tabs that wait."""
        channel = self._channels.setdefault(chat, Channel())
        channel.lines.append({"at": channel.next, **line})
        channel.next += 1
        channel.moved.set()
        channel.moved = asyncio.Event()

    def now(self, chat: str) -> int:
        """The number of the last line."""
        return self._channels[chat].next - 1 if chat in self._channels else 0

    def forget(self, chat: str) -> None:
        """Drop the lines of a chat in which nothing runs and that no tab reads."""
        channel = self._channels.get(chat)
        if channel is not None and channel.readers == 0:
            del self._channels[chat]

    def since(self, chat: str, since: int) -> list[dict[str, Any]]:
        """The lines after number `since`; `{"lost": true}` alone if some of them are gone."""
        channel = self._channels.get(chat, Channel())
        first = channel.lines[0]["at"] if channel.lines else channel.next
        if since + 1 < first or since >= channel.next:
            return [{"at": channel.next - 1, "lost": True}]
        new = channel.next - 1 - since
        return list(islice(channel.lines, len(channel.lines) - new, None))

    async def follow(self, chat: str, since: int) -> AsyncIterator[dict[str, Any]]:
        """Lines after number `since`, for ever; `{"lost": true}` first if some of them are gone."""
        channel = self._channels.setdefault(chat, Channel())
        channel.readers += 1
        try:
            while True:
                moved = channel.moved
                for line in self.since(chat, since):
                    since = line["at"]
                    yield line
                try:
                    async with asyncio.timeout(BEAT_S):
                        await moved.wait()
                except TimeoutError:
                    yield {}
        finally:
            channel.readers -= 1
