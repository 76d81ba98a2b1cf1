"""Events that carry one more word and nothing that healing has to look at, told by their bytes. Pure.

Decoding an event takes four times as long. An event is plain if it begins and ends like one that was decoded before,
and its word is known to hold no letter that begins a marker, and no white space at its end.
"""

from __future__ import annotations

import msgspec

MOST_WORDS = 65536
MOST_EVENTS = 512  # of one stream
MARKS = (b"<", b"[", b"\\", b'"')
NEVER = b"\0"  # no event begins so
_known: dict[bytes, bytes] = {}  # words that are plain; the same object for each, so that a long answer stays small
NONE = (b"", b"")


class PlainWords:
    """What plain events of one stream look like, and the text that has gone out.

    An event is plain if `events` has it under the word that is `at` to `until`, or if `took` says so. A comparison of
    the whole event is cheaper than looking at its beginning and its end.
    """

    __slots__ = ("_field", "_prefix", "_tail", "at", "events", "said", "until")

    def __init__(self, field: bytes) -> None:
        self._field = field  # comes before the text
        self._prefix = self._tail = NEVER
        self.at = self.until = 0
        self.said: list[bytes] = []
        self.events: dict[bytes, tuple[bytes, bytes]] = {}  # word -> the event that says it, and the word that is kept

    def took(self, data: bytes, word: bytes) -> bool:
        """Whether an event is a plain one that says `word`, which then counts as said."""
        known = _known.get(word)
        if known is None or data[: self.at] != self._prefix or data[self.until :] != self._tail:
            return False
        if len(self.events) >= MOST_EVENTS:
            self.events.clear()
        self.events[known] = (data, known)
        self.said.append(known)
        return True

    def learn(self, event: bytes, text: str) -> None:
        """Learn from an event, of which `text` was said."""
        word = msgspec.json.encode(text)[1:-1]
        at = event.find(self._field) + len(self._field)
        end = at + len(word)
        if at < len(self._field) or event[at:end] != word or not is_plain(word) or event[end : end + 1] != b'"':
            return
        if len(_known) >= MOST_WORDS:
            _known.clear()
        _known[word] = word
        if (event[:at], event[end:]) != (self._prefix, self._tail):
            self._prefix, self._tail, self.at, self.until = event[:at], event[end:], at, end - len(event)
            self.events.clear()

    def text(self) -> str:
        """All that was said until now."""
        return b"".join(self.said).decode(errors="replace")


def is_plain(word: bytes) -> bool:
    """Whether a word, as JSON without quotes, is one that healing need not look at."""
    return bool(word) and not word[-1:].isspace() and not any(mark in word for mark in MARKS)
