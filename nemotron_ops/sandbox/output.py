"""Bounded text of a sandbox, without control characters and template tokens. Pure."""

from __future__ import annotations

import re

JOINER = "\u200d"
# Escape sequences of terminals: CSI, OSC with its end, and two-byte ones; 8-bit forms are control characters.
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b.?")
# Bidirectional overrides make a text read otherwise than it is.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Markup of the chat template: it pastes the text of tools verbatim.
TOKENS = re.compile(r"<(?=\||/?(?:tool_call|tool_response|tools|think|function|parameter)\b)", re.IGNORECASE)


class Bounded:
    """Keeps the head and the tail of a stream of bytes, and counts all of it."""

    def __init__(self, most: int) -> None:
        self._half = max(most // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """The text for people and models; a cut is marked with the number of bytes left out."""
        tail = bytes(self._tail[-self._half :])
        left_out = self.total - len(self._head) - len(tail)
        if left_out <= 0:
            return plain((bytes(self._head) + tail).decode(errors="replace"))
        head = bytes(self._head).decode(errors="ignore")
        return plain(f"{head}\n[… {left_out} bytes left out …]\n{tail.decode(errors='ignore')}")


def plain(text: str) -> str:
    """`text` without what a terminal would obey; line ends become \\n."""
    return CONTROLS.sub("", ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def for_model(text: str) -> str:
    """`text` whose template tokens are broken by a zero-width joiner, so that they stay text in a prompt."""
    return TOKENS.sub(f"<{JOINER}", text)
